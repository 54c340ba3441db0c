package sqlq

import (
	"math"
	"sync/atomic"
	"time"
)

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

// anyOpen reports whether messages of some type are slowed down.
func (h *handlers) anyOpen() bool { return h.opened.Load() > 0 }

// mayRun says whether a message may be handled now: its type's breaker is closed, or it is a probe.
func (h *handlers) mayRun(d *delivery, now time.Time) bool {
	if d.handler == nil || d.probe || d.handler.closed() {
		return true
	}
	d.probe = d.handler.beginProbe(now)
	return d.probe
}

// mayRest notes that messages of the types that are slowed down may lie in the queue.
func (h *handlers) mayRest() {
	if !h.anyOpen() {
		return
	}
	for handling := range h.byType.all() {
		handling.setRest(true)
	}
}

// openTypes returns the message types that fetches leave out, and the one of them that a probe is to be fetched of now; "" if
// there is none. That probe has begun.
func (h *handlers) openTypes(now time.Time, mayProbe, awake bool) (open []string, probe string) {
	for handling := range h.byType.all() {
		if handling.closed() {
			continue
		}
		open = append(open, handling.messageType)
		if probe != "" || !mayProbe || !awake && !handling.resting() {
			continue
		}
		if handling.beginProbe(now) {
			probe = handling.messageType
		} else {
			handling.arm(now, h.life, h.probe)
		}
	}
	return open, probe
}

// isSlowed reports whether a message is of a type that is slowed down, and no probe.
func isSlowed(d *delivery) bool { return d.handler != nil && !d.probe && !d.handler.closed() }

// endProbe notes that a message is no probe any more, if it was one.
func (d *delivery) endProbe() {
	if d.probe {
		d.probe = false
		d.handler.endProbe()
	}
}

// probe goes on after a breaker's pause: with a message in hand, if there is one, else with a fetch.
func (in *instance) probe() {
	in.slots.startMore(1)
	in.run.dispatcher.kick()
}

// slowed returns messages of types that have just been slowed down to their queue, if they are leased or removed, and would stand in
// the way of others. Held ones go with their batch.
func (in *instance) slowed() {
	in.hand.withdrawSingle(isSlowed)
	in.run.dispatcher.kick()
}

// recovered goes on with all messages of a type whose breaker has closed: those in hand, and those that fetches left out.
func (in *instance) recovered() {
	in.suspicion.lookAgain()
	in.slots.startMore(math.MaxInt)
	in.lookFromLow()
}
