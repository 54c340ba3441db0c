package sqlq

import (
	"context"
	"time"
)

// attend decides when an instance looks for messages. While fetches bring something, receivers go on by themselves; it
// steps in when one comes back short: look again a moment later, for as long as most looks bring something, then sleep
// until somebody sends. An instance that is woken again as soon as it has fallen asleep, a few times in a row, spares the
// senders the waking and looks by itself for a while. While its queue is paused it does nothing but wait for the end of
// that, and nobody wakes it for messages.
func (in *instance) attend(ctx context.Context) {
	l := in.run.listener
	naps := 0 // short ones in a row
	for ctx.Err() == nil {
		if in.isPaused() {
			l.leave(in)
			in.wokenWithin(ctx, time.Hour)
			continue
		}
		busy := in.look(ctx)
		how := l.rests(in)
		if how == watching && (busy > 1 || naps >= maxNaps) {
			l.rouse(in)
			how = deaf
		}
		if how != watching {
			for patience := maxPatience; busy > 0 && patience > 0 && ctx.Err() == nil; {
				in.wokenWithin(ctx, linger)
				if in.look(ctx) > 0 {
					patience = min(patience+1, maxPatience)
				} else {
					patience -= 2
				}
			}
			if in.isPaused() { // which woke it, perhaps in one of these looks
				continue
			}
			// Whoever inserted before senders notify was noted or has committed: this look sees the latter.
			if how = l.sleep(ctx, in); how == watching && (in.look(ctx) > 1 || l.rests(in) != watching) {
				continue
			}
		}
		began := time.Now()
		in.wokenWithin(ctx, in.pollPause(how))
		if naps++; how != watching || time.Since(began) > shortNap {
			naps = 0
		}
	}
}

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
		for _, h := range in.handlers {
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
			in.run.listener.overflow(in)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.looking = false
	return in.fetches
}

// isSlow says whether the first fetch of a look is still under way. Otherwise there is more than one fetch brings, or
// no slot or connection is free to fetch for.
func (in *instance) isSlow() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.fetches == 0 && in.fetching > 0
}

// wake has the instance look for messages.
func (in *instance) wake() {
	in.mu.Lock()
	in.wakes++
	in.start.woken = true
	in.mu.Unlock()
	nudge(in.woken)
}

// pollPause is how long an instance sleeps at most. While somebody wakes it, the listener polls for all instances. But
// what a frozen or cut-off process holds comes free when the server ends its sessions, and nobody notifies then.
func (in *instance) pollPause(how rest) time.Duration {
	if how != deaf && !in.suspicious() {
		return time.Hour
	}
	d := pollDeaf
	if every := in.client.config.PollInterval; every > 0 && (every < d || in.run.listener.onlyPolls()) {
		d = every
	}
	return d/2 + time.Duration(in.client.config.rand()*float64(d)) // the processes of a fleet, spread
}

// wokenWithin says whether somebody woke the instance within d.
func (in *instance) wokenWithin(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-in.woken:
		return true
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	}
}
