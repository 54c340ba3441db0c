package wakeup

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An endpoint whose listener is not connected polls by itself, looks at once when it is rung for, and does nothing while its
// queue is paused.
func TestAttendWithoutASession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int64
		var rung []Reason
		var paused atomic.Bool
		b := NewBell(Bell{
			Queue: "house", Rung: func(why Reason) { rung = append(rung, why) }, Look: func(context.Context) int { looks.Add(1); return 0 },
			IsPaused: func() bool { return paused.Load() }, HasRoom: func() bool { return true }, IsSuspicious: func() bool { return false },
			IsDraining: func() bool { return false },
		})
		l := New(Config{Log: slog.New(slog.DiscardHandler), Rand: func() float64 { return 0.5 }})
		l.Add(b)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan struct{})
		go func() { defer close(ended); b.Attend(ctx) }()
		synctest.Wait()
		if looks.Load() != 1 || b.Rests() != Deaf || l.Hears() {
			t.Errorf("%d looks at the beginning, it rests %v", looks.Load(), b.Rests())
		}
		<-time.After(PollDeaf + time.Millisecond)
		synctest.Wait()
		if looks.Load() != 2 {
			t.Errorf("%d looks after the pause between polls, want 2", looks.Load())
		}
		b.Ring(Notified)
		synctest.Wait()
		if looks.Load() != 3 || len(rung) != 1 || rung[0] != Notified {
			t.Errorf("%d looks when it was rung for, for the reasons %v", looks.Load(), rung)
		}
		paused.Store(true)
		b.Interrupt()
		synctest.Wait()
		<-time.After(time.Minute)
		synctest.Wait()
		if looks.Load() != 3 {
			t.Errorf("%d looks while the queue is paused, want none more", looks.Load()-3)
		}
		if l.Wake("sqlq_1") || l.Notify([]string{"sqlq_1"}) {
			t.Error("a listener that is not connected says that it wakes")
		}
		cancel()
		<-ended
	})
}

// How an endpoint rests follows from what it wishes and what the session holds for it.
func TestRests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		post *post
		want Rest
	}{
		{nil, Deaf},
		{&post{wish: awake, watch: true}, Deaf},
		{&post{wish: away}, Deaf},
		{&post{wish: asleep, asking: make(chan struct{})}, Deaf},
		{&post{wish: asleep, watch: true, flag: true}, Watching},
		{&post{wish: asleep, watch: true}, Deaf}, // the sleeper's lock was refused
		{&post{wish: asleep}, OnCall},
	} {
		if got := c.post.rests(); got != c.want {
			t.Errorf("%+v rests %v, want %v", c.post, got, c.want)
		}
	}
}
