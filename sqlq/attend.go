package sqlq

import (
	"context"
	"time"
)

// attend decides when an instance looks for messages. While fetches bring something, receivers go on by themselves; it
// steps in when one comes back short: linger a moment and look once more, then sleep until somebody sends.
func (in *instance) attend(ctx context.Context) {
	flagged := false // senders notify this instance
	for ctx.Err() == nil {
		busy := in.look(ctx)
		if flagged && busy > 1 {
			in.run.listener.rouse(in) // messages come thick: spare the senders
			flagged = false
		}
		if !flagged {
			if in.wokenWithin(ctx, linger) || busy > 0 && in.look(ctx) > 0 {
				continue
			}
			if flagged = in.run.listener.sleep(ctx, in); flagged {
				// Whoever inserted before the flag was up was noted or has committed: this look sees the latter.
				if in.look(ctx) > 1 {
					continue
				}
			}
		}
		in.wokenWithin(ctx, in.pollPause(flagged))
		flagged = flagged && in.run.listener.holds(in)
	}
}

// pollPause is how long an instance sleeps at most. While senders notify it, the listener polls for all instances. But
// what a frozen or cut-off process holds comes free when the server ends its sessions, and nobody notifies then.
func (in *instance) pollPause(flagged bool) time.Duration {
	if flagged && !in.suspicious() {
		return time.Hour
	}
	d := pollDeaf
	if in.client.config.PollInterval > 0 {
		d = min(d, in.client.config.PollInterval)
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
