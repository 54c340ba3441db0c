package sqlq

import (
	"context"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// newBell returns the bell by which the instance is woken.
func (in *instance) newBell() *wakeup.Bell {
	return wakeup.NewBell(wakeup.Bell{
		Queue: in.endpoint.Name, Rung: in.rung, Look: in.look, HasRoom: in.hasRoom, IsPaused: in.isPaused, IsSuspicious: in.suspicious,
	})
}

// rung notes that there may be something to fetch: a fetch that began before may have looked too early.
func (in *instance) rung(why wakeup.Reason) {
	in.mu.Lock()
	in.wakes++
	in.start.woken = true
	switch why {
	case wakeup.Notified:
		in.done.Wakes++
	case wakeup.Found:
		in.start.lastZero = time.Time{} // what was put left of the others is found too
	}
	in.mu.Unlock()
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

// overflowAfter is how long an instance tries to see the end of its queue before it calls others.
const overflowAfter = 5 * time.Millisecond

// look makes receivers fetch until a fetch comes back short, and returns how many fetches brought something. When the end
// of the queue is not in sight it calls others. Of a paused queue nothing is fetched.
func (in *instance) look(ctx context.Context) int {
	in.mu.Lock()
	if in.paused {
		in.mu.Unlock()
		return 0
	}
	in.awake, in.looking, in.fetches = true, true, 0
	in.wakes++ // a fetch under way may have looked too early
	if in.opened.Load() > 0 {
		for h := range in.handlers.all() {
			h.setRest(true)
		}
	}
	select {
	case <-in.short:
	default:
	}
	in.mu.Unlock()
	in.run.schedule.kick()
	patience := time.NewTimer(overflowAfter)
	defer patience.Stop()
	for done := false; !done; {
		select {
		case <-in.short:
			done = true
		case <-ctx.Done():
			done = true
		case <-patience.C:
			if in.isSlow() {
				patience.Reset(overflowAfter)
				continue
			}
			in.bell.Overflow()
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.looking = false
	return in.fetches
}

// isSlow reports whether the first fetch of a look is still under way. Otherwise there is more than one fetch brings, or
// no slot or connection is free to fetch for.
func (in *instance) isSlow() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fetches == 0 && in.fetching > 0
}
