package sqlq

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// A suspicion that ends because its time has run out has the instance look again for what fetches have gone past, once; one that
// was renewed, or has ended before, does not.
func TestSuspicionThatRunsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rung := 0
		var l life
		in := &instance{bell: wakeup.NewBell(wakeup.Bell{Rung: func(wakeup.Reason) { rung++ }})}
		in.suspicion.life, in.suspicion.ranOut = &l, in.lookFromLow
		defer l.end(time.Second)
		in.source.at.high = 1000
		looks := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			in.source.mu.Lock()
			defer in.source.mu.Unlock()
			if in.source.at.rewinds != want || rung != want {
				t.Errorf("%s: it looks again for the %d. time and was woken %d times, want %d", when, in.source.at.rewinds, rung, want)
			}
		}
		in.suspicion.all()
		time.Sleep(suspicionTime / 2)
		in.suspicion.upToSeq(900)
		time.Sleep(suspicionTime * 3 / 4)
		looks("it was renewed", 0)
		time.Sleep(suspicionTime)
		looks("it has run out", 1)
		if in.source.at.high != 0 {
			t.Errorf("the next fetch begins at %d", in.source.at.high)
		}
		in.suspicion.all()
		in.suspicion.end(in.suspicion.at(time.Now()).epoch) // as clearSuspicion does
		time.Sleep(2 * suspicionTime)
		looks("another was cleared", 1)
	})
}
