package sqlq

import (
	"context"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// lookout says whether an instance is to fetch: whether its queue may hold messages, and whether anything forbids it. mu guards all
// of it; it is one of the last in the order of locks.
type lookout struct {
	mu        ranked[ofPart]
	awake     bool          // the queue may hold messages: fetch
	looking   bool          // a look waits for a fetch that comes back short
	wakes     int           // counts wake-ups, so that a fetch that began before one does not put the instance to sleep
	fetches   int           // that brought something since the look began
	paused    bool          // an operator paused the queue: nothing is fetched
	notBefore time.Time     // no fetch before: the queue is missing
	short     chan struct{} // filled when a fetch comes back short
}

func newLookout() lookout { return lookout{awake: true, short: make(chan struct{}, 1)} }

// outlook is a lookout as it stands at a moment.
type outlook struct {
	awake     bool
	forbidden bool // to fetch
	wakes     int
}

// at returns how it stands.
func (l *lookout) at(now time.Time) outlook {
	l.mu.Lock()
	defer l.mu.Unlock()
	return outlook{awake: l.awake, forbidden: l.paused || now.Before(l.notBefore), wakes: l.wakes}
}

// woke notes that somebody woke the instance: a fetch that is under way may have looked too early.
func (l *lookout) woke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakes++
}

// begin begins a look, unless the queue is paused.
func (l *lookout) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused {
		return false
	}
	l.awake, l.looking, l.fetches = true, true, 0
	l.wakes++ // a fetch under way may have looked too early
	select {
	case <-l.short:
	default:
	}
	return true
}

// end ends a look, and returns how many fetches brought something.
func (l *lookout) end() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looking = false
	return l.fetches
}

// came notes how many fetches, or fetched messages, have come.
func (l *lookout) came(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fetches += n
}

// hasCome reports whether a fetch of this look has brought something.
func (l *lookout) hasCome() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetches > 0
}

// fetched takes in whether there may be more where a fetch looked that began after so many wake-ups. If so, and nobody looks,
// somebody must see the end of it.
func (l *lookout) fetched(wakes int, more bool) (nobodyLooks bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.awake = more || wakes != l.wakes; l.awake {
		return !l.looking
	}
	nudge(l.short)
	return false
}

// newBell returns the bell by which the instance is woken.
func (in *instance) newBell() *wakeup.Bell {
	return wakeup.NewBell(wakeup.Bell{
		Queue: in.endpoint.Name, Rung: in.rung, Look: in.look, HasRoom: in.hasRoom, IsPaused: in.lookout.isPaused, IsDraining: in.phase.isDraining,
		IsSuspicious: func() bool { return in.suspicion.at(time.Now()).holds },
	})
}

// rung notes that there may be something to fetch. The source is told before the lookout: a fetch that has missed it there finds
// here that it may have looked too early, and the next one does not.
func (in *instance) rung(why wakeup.Reason) {
	in.source.woke(why == wakeup.Found)
	in.lookout.woke()
	if why == wakeup.Notified {
		in.counts.woken()
	}
	if by, told := wokenBy[why]; told {
		in.client.config.observing.woken(in, by)
	}
}

// wokenBy is what an Observer is told of.
var wokenBy = map[wakeup.Reason]WokenBy{
	wakeup.Notified: WokenByNotification, wakeup.Found: WokenByPolling, wakeup.Sent: WokenByThisProcess,
}

// wake has the instance look for messages.
func (in *instance) wake() { in.bell.Ring(wakeup.Called) }

// askAgain has the instance look once more for what it was woken for, unless that has been found.
func (in *instance) askAgain() {
	if in.source.mustAsk() {
		in.wake()
	}
}

// overflowAfter is how long an instance tries to see the end of its queue before it calls others.
const overflowAfter = 5 * time.Millisecond

// look makes receivers fetch until a fetch comes back short, and returns how many fetches brought something. When the end
// of the queue is not in sight it calls others. Of a paused queue nothing is fetched.
func (in *instance) look(ctx context.Context) int {
	if !in.lookout.begin() {
		return 0
	}
	in.handlers.mayRest()
	in.run.dispatcher.kick()
	patience := time.NewTimer(overflowAfter)
	defer patience.Stop()
	for done := false; !done; {
		select {
		case <-in.lookout.short:
			done = true
		case <-ctx.Done():
			done = true
		case <-patience.C:
			// While the first fetch of a look is still under way it is slow. Otherwise there is more than one fetch brings, or no slot or
			// connection is free to fetch for. Asked in this order: what was under way may have come since.
			if in.hand.isFetching() && !in.lookout.hasCome() {
				patience.Reset(overflowAfter)
				continue
			}
			in.bell.Overflow()
		}
	}
	return in.lookout.end()
}
