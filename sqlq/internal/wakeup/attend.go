package wakeup

import (
	"context"
	"time"
)

// Attend decides when an endpoint looks for messages. While fetches bring something, receivers go on by themselves. When one
// comes back short, Attend looks again a moment later, for as long as most looks bring something, and then sleeps
// until a message is sent. An endpoint that is woken as soon as it has fallen asleep, a few times in a row, polls by itself for
// a while, which saves its senders the wake-ups. While its queue is paused it only waits for the end of the
// pause, and messages do not wake it.
func (b *Bell) Attend(ctx context.Context) {
	l := b.listener
	naps := 0 // consecutive short sleeps
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
			if b.IsPaused() { // the pause woke it, perhaps during one of these looks
				continue
			}
			// A sender that inserted before senders began to notify was noted, or has committed: then this look finds its message.
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

// pollPause returns how long an endpoint sleeps at most. While it can be woken, the listener polls for all endpoints. But
// what a frozen or cut-off process holds becomes free when the server ends its sessions, and that sends no notification.
func (b *Bell) pollPause(how Rest) time.Duration {
	if how != Deaf && !b.IsSuspicious() {
		return time.Hour
	}
	d := PollDeaf
	if every := b.listener.PollInterval; every > 0 && (every < d || b.listener.onlyPolls()) {
		d = every
	}
	return d/2 + time.Duration(b.listener.Rand()*float64(d)) // spreads out the processes of a fleet
}

// wokenWithin reports whether the bell was rung, or the wait interrupted, within d.
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
