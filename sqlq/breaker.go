package sqlq

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// BreakerPolicy says when an endpoint slows the messages of one type down: when a service that their handler needs is broken, every
// further attempt would only fill the error table. The zero value is the default.
//
// They are slowed down when so many of them have failed with errors of one group, and none has succeeded in between, whatever failed with
// other errors meanwhile. A broken service fails all messages, and in few ways; messages that are themselves at fault fail in many ways, or
// among others that succeed. A group is the innermost error's type and text, without numbers, ids and addresses. What says nothing
// about a service does not count: Unrecoverable errors, bodies that cannot be decoded, messages that were given back, and those that have
// failed in an earlier round.
//
// While a type is slowed down fetches leave it out, so that messages of other types pass, and one message at a time is tried, as a probe.
// After each probe that fails the next one comes later, and is of a message further ahead in the queue, so that good messages behind bad
// ones are soon found. The first that succeeds ends it. If it happens again within a minute, twice as many must fail, and so on.
type BreakerPolicy struct {
	// Off slows nothing down: messages that all fail go through their retries, and to the error table, as fast as others are handled.
	// Default: off, messages are slowed down. Cost: while a service is broken, messages use up their retries.
	Off bool
	// Failures is how many messages of one type must fail, with errors of one group and without a success in between.
	// Default: 10, or Concurrency if that is more. Unit: messages, up to 1,000,000. Cost: more: more messages use up attempts before
	// it is noticed that a service is broken.
	Failures int
	// MaxPause is the longest pause between two probes. The first is at most a tenth of a second, each of the others twice as long as the
	// one before.
	// Default: 1 s. Unit: duration, 1 ms to 1 h. Cost: longer: it is noticed later that a service works again.
	MaxPause time.Duration
}

const (
	mostFailures      = 1_000_000
	firstPause        = 100 * time.Millisecond
	longestProbePause = time.Hour
)

func (p BreakerPolicy) withDefaults(concurrency int) BreakerPolicy {
	if p.Failures == 0 {
		p.Failures = max(10, concurrency)
	}
	if p.MaxPause == 0 {
		p.MaxPause = time.Second
	}
	return p
}

func (p BreakerPolicy) validate() error {
	var errs []error
	if p.Failures < 1 || p.Failures > mostFailures {
		errs = append(errs, fmt.Errorf("its Breaker.Failures is %d: it must be from 1 to 1,000,000; to switch it off set Breaker.Off", p.Failures))
	}
	if p.MaxPause < time.Millisecond || p.MaxPause > longestProbePause {
		errs = append(errs, fmt.Errorf("its Breaker.MaxPause is %v: it must be from 1 ms to 1 h", p.MaxPause))
	}
	return errors.Join(errs...)
}

// breaker slows the messages of one type down when they fail one after the other (BreakerPolicy). While it is open fetches leave the
// type out, so that messages of others go past, and one message at a time is fetched and tried as a probe, until one succeeds.
//
// Probes go ahead in the queue in growing steps, and in shrinking ones where it ends, so that n messages which are at fault are passed
// within some log n probes. When a success has closed the breaker those are worked on again, from the left end; and that it opens anew for
// them so soon makes it need more failures.
type breaker struct {
	off    bool
	policy BreakerPolicy
	calm   atomic.Bool // nothing failed since the last success: it can be seen without mu, for every message asks

	mu     ranked[ofBreaker]
	groups tally     // of what has failed since the last success
	next   time.Time // the next probe; zero: closed
	wait   time.Duration
	last   int64     // the next probe is of a message behind this seq; 0: the first there is
	skip   int64     // and leaves out so many numbers
	missed bool      // none was found behind where one had succeeded: others may hold them
	ended  time.Time // when a success has closed it
	times  int       // that it was closed so, each within doubtFor of the one before

	probing time.Time // since when a probe is under way; zero: none is
	rest    bool      // messages of the type may lie in the queue
	armed   bool      // a timer runs for the next probe
}

const (
	// maxProbe is how long a probe keeps others waiting: nobody knows how long a handler takes.
	maxProbe = 30 * time.Second
	// doubtFor is how long a success makes a breaker need more failures to open again.
	doubtFor = time.Minute
	mostSkip = 1 << 40
)

func newBreaker(p BreakerPolicy) breaker { return breaker{off: p.Off, policy: p} }

func (b *breaker) closed() bool {
	if b.calm.Load() || b.off {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next.IsZero()
}

// success says whether this one closed the breaker. A probe's seq is that of a message behind which there may be others that succeed.
func (b *breaker) success(seq int64) (closed bool) {
	if b.calm.Load() || b.off {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if closed = !b.next.IsZero(); closed {
		now := time.Now()
		b.times = b.timesLately(now) + 1
		b.ended, b.last = now, seq
	}
	b.calm.Store(true)
	b.groups.clear()
	b.next, b.wait = time.Time{}, 0
	return closed
}

func (b *breaker) timesLately(now time.Time) int {
	if now.Sub(b.ended) > doubtFor {
		return 0
	}
	return b.times
}

// failure says whether this one opened the breaker. A message that is known to fail, from an earlier round of retries,
// says nothing new: it neither opens the breaker nor makes the next probe wait.
func (b *breaker) failure(now time.Time, group string, known bool) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case known && !b.next.IsZero():
		b.next = now
		return false
	case known:
		return false
	}
	b.calm.Store(false)
	if b.next.IsZero() {
		lately := b.timesLately(now)
		if b.groups.add(group) < b.policy.Failures<<min(lately, 30) {
			return false
		}
		opened, b.skip, b.missed = true, 0, false
		if lately == 0 {
			b.last = 0
		}
	}
	b.wait = min(max(2*b.wait, firstPause), b.policy.MaxPause)
	b.next, b.rest = now.Add(b.wait), true
	return opened
}

// goAhead has the next probe be of a message further ahead than one that has failed, and leave out more than it did.
func (b *breaker) goAhead(seq int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if seq > b.last {
		b.last, b.skip = seq, min(2*b.skip+1, mostSkip)
	}
}

// beginProbe says whether a probe may begin now, which then has, and behind which seq.
func (b *breaker) beginProbe(now time.Time) (from int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next.IsZero() || now.Before(b.next) || !b.probing.IsZero() && now.Sub(b.probing) < maxProbe {
		return 0, false
	}
	b.probing = now
	return b.last + b.skip, true
}

func (b *breaker) endProbe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = time.Time{}
}

// foundNone ends a probe for which no message was there: not the next at once, unless there may be some further back.
func (b *breaker) foundNone(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = time.Time{}
	switch {
	case b.next.IsZero():
	case b.skip > 0:
		b.skip, b.next = b.skip/2, now
	case b.last > 0 && !b.missed:
		b.missed, b.next = true, now.Add(firstPause)
	case b.last > 0:
		b.last, b.next = 0, now
	default:
		b.next = now.Add(max(b.wait, firstPause))
	}
}

// resting says whether messages of the type may lie in the queue; setRest notes it, and looked what a probe's fetch has found of it.
func (b *breaker) resting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rest
}

func (b *breaker) setRest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = true
}

func (b *breaker) looked(found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = found || b.last > 0
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
	_, d.probe = d.handler.beginProbe(now)
	return d.probe
}

// mayRest notes that messages of the types that are slowed down may lie in the queue.
func (h *handlers) mayRest() {
	if !h.anyOpen() {
		return
	}
	for handling := range h.byType.all() {
		handling.setRest()
	}
}

// openTypes returns the message types that fetches leave out, and the one of them that a probe is to be fetched of now, behind a seq; "" if
// there is none. That probe has begun.
func (h *handlers) openTypes(now time.Time, mayProbe, awake bool) (open []string, probe string, behind int64) {
	for handling := range h.byType.all() {
		if handling.closed() {
			continue
		}
		open = append(open, handling.messageType)
		if probe != "" || !mayProbe || !awake && !handling.resting() {
			continue
		}
		if from, ok := handling.beginProbe(now); ok {
			probe, behind = handling.messageType, from
		} else {
			handling.arm(now, h.life, h.probe)
		}
	}
	return open, probe, behind
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

// failed records a failed attempt. What no handler has seen, or is the message's own fault, says nothing about the endpoint's health, and
// neither does a message that was given back.
func (h *handlers) failed(d *delivery) {
	if d.handler == nil || d.handler.off {
		return
	}
	now := time.Now()
	if d.saysNothing() {
		d.handler.arm(now, h.life, h.probe)
		return
	}
	if d.handler.failure(now, breakerGroup(d.err), d.made() > 1+h.endpoint.Retry.Immediate || d.failedBefore()) {
		h.opened.Add(1)
		h.slowed()
		h.client.log.WarnContext(d.ctx, "sqlq: messages of a type fail one after the other; slowing it to one probe at a time", "endpoint", h.endpoint.Name, "type", d.stored.messageType, "err", loggedError(d.err))
	}
	if d.probe {
		d.handler.goAhead(d.seq)
	}
	d.handler.arm(now, h.life, h.probe)
}

func (d *delivery) saysNothing() bool {
	return d.broken != nil || d.outcome.verdict == wait || d.outcome.verdict == giveBack || isFinal(d.err) || errors.Is(d.err, ErrCrashed)
}

// succeeded records a handler's success.
func (h *handlers) succeeded(d *delivery) {
	if d.handler.success(d.seq) {
		h.opened.Add(-1)
		h.recovered()
	}
}

// breakerGroup puts errors with one cause in one group: the innermost one tells, because what wraps it often names the message.
func breakerGroup(err error) string {
	chain := unwrapAll(err)
	innermost := chain[len(chain)-1]
	return fingerprint("", typeOf(innermost), innermost.Error())
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
