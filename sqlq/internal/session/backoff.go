package session

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff waits between attempts: 50 ms, doubling up to 5 s or to mostBackoff, with jitter, so that the processes of a fleet do
// not all retry at once.
type Backoff struct{ d time.Duration }

// Wait returns at once when ctx ends.
func (b *Backoff) Wait(ctx context.Context) { b.WaitFor(ctx, nil, 5*time.Second) }

// WaitFor waits no longer than most, and returns at once when ctx ends or there is news.
func (b *Backoff) WaitFor(ctx context.Context, news <-chan struct{}, most time.Duration) {
	b.d = min(max(2*b.d, 50*time.Millisecond), most)
	timer := time.NewTimer(b.d/2 + time.Duration(rand.Float64()*float64(b.d/2)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-news:
	case <-timer.C:
	}
}

// Reset starts from the shortest wait again, after an attempt has succeeded.
func (b *Backoff) Reset() { b.d = 0 }
