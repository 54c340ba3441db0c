package sqlq

import (
	"testing"
	"testing/synctest"
	"time"
)

// A suspicion that ends because its time has run out has the instance look again for what fetches have gone past, once; one that
// was renewed, or has ended before, does not.
func TestSuspicionThatRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		in := &instance{run: &runner{}, woken: make(chan struct{}, 1)}
		defer in.run.life.end(time.Second)
		in.start.high = 1000
		looks := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			in.mu.Lock()
			defer in.mu.Unlock()
			if in.start.rewinds != want || len(in.woken) != min(want, 1) {
				t.Errorf("%s: it looked again %d times, want %d", when, in.start.rewinds, want)
			}
		}
		in.suspect()
		time.Sleep(suspicionTime / 2)
		in.suspectUpTo(900)
		time.Sleep(suspicionTime * 3 / 4)
		looks("it was renewed", 0)
		time.Sleep(suspicionTime)
		looks("it has run out", 1)
		if in.start.high != 0 {
			t.Errorf("the next fetch begins at %d", in.start.high)
		}
		in.suspect()
		in.mu.Lock()
		in.suspicion.until = time.Time{} // as clearSuspicion does
		in.mu.Unlock()
		time.Sleep(2 * suspicionTime)
		looks("another was cleared", 1)
	})
}
