package sqlq

import (
	"sync/atomic"
	"time"
)

// handling is a handler of an instance, with its breaker.
type handling struct {
	*Handler
	breaker
}

// breaker slows the messages of one type down when they fail one after the other: a fault outside of them is likely, and every
// further attempt would only fill the error table. While it is open fetches leave the type out, so that messages of others
// go past, and one message at a time is fetched and tried as a probe, until one succeeds.
type breaker struct {
	calm  atomic.Bool // nothing failed since the last success: it can be seen without mu, for every message asks
	mu    ranked[ofBreaker]
	limit int // failures in a row
	row   int
	next  time.Time // the next probe; zero: closed
	wait  time.Duration

	probing time.Time // since when a probe is under way; zero: none is
	rest    bool      // messages of the type may lie in the queue
	armed   bool      // a timer runs for the next probe
}

// maxProbe is how long a probe keeps others waiting: nobody knows how long a handler takes.
const maxProbe = 30 * time.Second

func (b *breaker) closed() bool {
	if b.calm.Load() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next.IsZero()
}

// success says whether this one closed the breaker.
func (b *breaker) success() (closed bool) {
	if b.calm.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	closed = !b.next.IsZero()
	b.calm.Store(true)
	b.row, b.next, b.wait = 0, time.Time{}, 0
	return closed
}

// failure says whether this one opened the breaker. A message that is known to fail, from an earlier round of retries,
// says nothing new: it neither opens the breaker nor makes the next probe wait.
func (b *breaker) failure(now time.Time, known bool) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known {
		if !b.next.IsZero() {
			b.next = now
		}
		return false
	}
	b.calm.Store(false)
	if b.row++; b.row < b.limit {
		return false
	}
	opened = b.next.IsZero()
	b.wait = min(max(2*b.wait, 100*time.Millisecond), time.Second)
	b.next, b.rest = now.Add(b.wait), true
	return opened
}

// beginProbe says whether a probe may begin now, which then has.
func (b *breaker) beginProbe(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next.IsZero() || now.Before(b.next) || !b.probing.IsZero() && now.Sub(b.probing) < maxProbe {
		return false
	}
	b.probing = now
	return true
}

func (b *breaker) endProbe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = time.Time{}
}

// foundNone ends a probe for which no message was there: not the next at once.
func (b *breaker) foundNone(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = time.Time{}
	if !b.next.IsZero() {
		b.next = now.Add(max(b.wait, 100*time.Millisecond))
	}
}

// resting says whether messages of the type may lie in the queue; setRest notes it.
func (b *breaker) resting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest
}

func (b *breaker) setRest(rest bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = rest
}

// arm calls f when the next probe is due, unless a call is on its way already.
func (b *breaker) arm(now time.Time, l *life, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.armed || b.next.IsZero() {
		return
	}
	b.armed = true
	l.after(max(b.next.Sub(now), time.Millisecond), func() {
		now := time.Now()
		b.mu.Lock()
		b.armed = false
		early := now.Before(b.next) // another failure has put it off
		b.mu.Unlock()
		if early {
			b.arm(now, l, f)
			return
		}
		f()
	})
}

// mayRun says whether a message may be handled now: its type's breaker is closed, or it is a probe.
func (in *instance) mayRun(d *delivery, now time.Time) bool {
	if d.handler == nil || d.probe || d.handler.closed() {
		return true
	}
	d.probe = d.handler.beginProbe(now)
	return d.probe
}

// endProbe notes that a message is no probe any more, if it was one.
func (d *delivery) endProbe() {
	if d.probe {
		d.probe = false
		d.handler.endProbe()
	}
}

// probe goes on after a breaker's pause: with a message in hand, if there is one, else with a fetch.
func (in *instance) probe() {
	in.mu.Lock()
	if in.states[waiting] > 0 && in.busy < in.endpoint.Concurrency {
		in.startSlot()
	}
	in.mu.Unlock()
	in.run.schedule.kick()
}

// openTypes returns the message types that fetches leave out, and the one of them that a probe is to be fetched of now; "" if
// there is none. That probe has begun.
func (in *instance) openTypes(now time.Time, mayProbe bool) (open []string, probe string) {
	if in.opened.Load() == 0 {
		return nil, ""
	}
	for h := range in.handlers.all() {
		if h.closed() {
			continue
		}
		open = append(open, h.messageType)
		if probe != "" || !mayProbe || !in.awake && !h.resting() {
			continue
		}
		if h.beginProbe(now) {
			probe = h.messageType
		} else {
			h.arm(now, &in.run.life, in.probe)
		}
	}
	return open, probe
}

// slowed withdraws the messages in hand of types that have just been slowed down.
func (in *instance) slowed() {
	in.opened.Add(1)
	in.mu.Lock()
	for _, b := range in.batches {
		in.withdrawSlowed(b)
	}
	in.mu.Unlock()
	in.run.schedule.kick()
}

// withdrawSlowed returns messages of slowed types to their queue that are leased or removed, and would stand in the way of
// others. Held ones go with their batch.
func (in *instance) withdrawSlowed(b *batch) {
	if b.custody.isSingle() {
		in.withdraw(b, func(d *delivery) bool { return d.handler != nil && !d.probe && !d.handler.closed() })
	}
}

// recovered goes on with all messages of a type whose breaker has closed: those in hand, and those that fetches left out.
func (in *instance) recovered() {
	in.opened.Add(-1)
	in.mu.Lock()
	in.suspicion.rest, in.suspicion.next = true, time.Time{}
	for range min(in.states[waiting], in.endpoint.Concurrency-in.busy) {
		in.startSlot()
	}
	in.mu.Unlock()
	in.lookFromLow()
}
