package wakeup

import (
	"context"
	"time"
)

// Attend decides when an endpoint looks for messages. While fetches bring something, receivers go on by themselves; it
// steps in when one comes back short: look again a moment later, for as long as most looks bring something, then sleep
// until somebody sends. One that is woken again as soon as it has fallen asleep, a few times in a row, spares the
// senders the waking and looks by itself for a while. While its queue is paused it does nothing but wait for the end of
// that, and nobody wakes it for messages.
func (b *Bell) Attend(ctx context.Context) {
	l := b.listener
	naps := 0 // short ones in a row
	for ctx.Err() == nil {
		if b.IsPaused() {
			l.leave(b)
			b.wokenWithin(ctx, time.Hour)
			continue
		}
		busy := b.Look(ctx)
		how := l.rests(b)
		if how == Watching && (busy > 1 || naps >= maxNaps) {
			l.rouse(b)
			how = Deaf
		}
		if how != Watching {
			for patience := maxPatience; busy > 0 && patience > 0 && ctx.Err() == nil; {
				b.wokenWithin(ctx, linger)
				if b.Look(ctx) > 0 {
					patience = min(patience+1, maxPatience)
				} else {
					patience -= 2
				}
			}
			if b.IsPaused() { // which woke it, perhaps in one of these looks
				continue
			}
			// Whoever inserted before senders notify was noted or has committed: this look sees the latter.
			if how = l.sleep(ctx, b); how == Watching && (b.Look(ctx) > 1 || l.rests(b) != Watching) {
				continue
			}
		}
		began := time.Now()
		b.wokenWithin(ctx, b.pollPause(how))
		if naps++; how != Watching || time.Since(began) > shortNap {
			naps = 0
		}
	}
}

// pollPause is how long an endpoint sleeps at most. While somebody wakes it, the listener polls for all endpoints. But
// what a frozen or cut-off process holds comes free when the server ends its sessions, and nobody notifies then.
func (b *Bell) pollPause(how Rest) time.Duration {
	if how != Deaf && !b.IsSuspicious() {
		return time.Hour
	}
	d := PollDeaf
	if every := b.listener.PollInterval; every > 0 && (every < d || b.listener.onlyPolls()) {
		d = every
	}
	return d/2 + time.Duration(b.listener.Rand()*float64(d)) // the processes of a fleet, spread
}

// wokenWithin reports whether somebody rang, or interrupted the wait, within d.
func (b *Bell) wokenWithin(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-b.woken:
		return true
	case <-timer.C:
		return false
	case <-ctx.Done():
		return false
	}
}
