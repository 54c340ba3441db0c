package sqlq

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A timer of a Run fires once, not after the Run's end, and the end waits for what has begun.
func TestLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l life
		var fired atomic.Int32
		l.after(time.Second, func() { fired.Add(1) })
		l.after(time.Minute, func() { fired.Add(100) })
		time.Sleep(2 * time.Second)
		if n := fired.Load(); n != 1 {
			t.Errorf("fired %d times, want 1", n)
		}
		l.after(time.Second, func() { time.Sleep(time.Second); fired.Add(1) })
		time.Sleep(time.Second + time.Millisecond)
		if !l.end(time.Minute) || fired.Load() != 2 {
			t.Errorf("it has ended, and %d are counted; want 2", fired.Load())
		}
		l.after(0, func() { fired.Add(100) })
		time.Sleep(time.Hour)
		if n := fired.Load(); n != 2 || len(l.timers) != 0 {
			t.Errorf("after its end %d are counted and %d wait, want 2 and none", n, len(l.timers))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var l life
		l.after(0, func() { time.Sleep(time.Minute) })
		synctest.Wait()
		if l.end(time.Second) {
			t.Error("it has ended although a goroutine runs")
		}
		time.Sleep(time.Minute)
	})
}
