package sqlq

import (
	"sync"
	"sync/atomic"
	"time"
)

// breaker slows an instance down when messages fail one after the other: a fault outside of them is likely, and every
// further attempt would only fill the error table.
type breaker struct {
	calm  atomic.Bool // nothing failed since the last success: it can be seen without mu, for every message asks
	mu    sync.Mutex
	limit int // failures in a row
	row   int
	next  time.Time // the next probe; zero: closed
	wait  time.Duration
}

func (b *breaker) closed() bool {
	if b.calm.Load() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next.IsZero()
}

func (b *breaker) due(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !now.Before(b.next)
}

func (b *breaker) success() {
	if b.calm.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calm.Store(true)
	b.row, b.next, b.wait = 0, time.Time{}, 0
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
	b.next = now.Add(b.wait)
	return opened
}

func (b *breaker) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wait
}
