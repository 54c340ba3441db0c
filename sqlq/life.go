package sqlq

import (
	"sync"
	"time"
)

// life holds what a Run starts besides its receivers, listener and keeper: the slots' goroutines, and timers. Whatever happens
// later than now goes through it, so that nothing of a Run is left when it has ended.
type life struct {
	goroutines sync.WaitGroup // slots, which only receivers, timers and other slots start, and what timers have begun

	mu     ranked[ofLife] // a leaf: nothing is locked, called or waited for while it is held
	timers map[*timer]struct{}
	ended  bool
}

// timer is one that has not fired. Its field is guarded by life.mu.
type timer struct{ *time.Timer }

// after calls f on a goroutine of its own when d has passed, unless the end comes first.
func (l *life) after(d time.Duration, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	if l.timers == nil {
		l.timers = map[*timer]struct{}{}
	}
	t := &timer{}
	t.Timer = time.AfterFunc(d, func() { // which may run before this has been assigned, but then waits for mu
		if l.fires(t) {
			defer l.goroutines.Done()
			f()
		}
	})
	l.timers[t] = struct{}{}
}

func (l *life) fires(t *timer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, pending := l.timers[t]; !pending {
		return false
	}
	delete(l.timers, t)
	l.goroutines.Add(1)
	return true
}

// end stops the timers and waits for what runs, but not longer than within. It returns false if something still does.
func (l *life) end(within time.Duration) bool {
	l.mu.Lock()
	l.ended = true
	for t := range l.timers {
		t.Stop()
	}
	clear(l.timers)
	l.mu.Unlock()
	return waitFor(&l.goroutines, within)
}
