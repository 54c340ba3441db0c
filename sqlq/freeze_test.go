//go:build unix

package sqlq_test

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// A process that is frozen for a while, its connections open, holds nothing up for longer than its lease or the server's
// patience with an idle transaction. When it goes on, the late results of its handlers change nothing: others have
// handled the messages. It then goes on with new ones.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	waiting := map[int]string{}
	for i := range 4 {
		waiting[i] = "wait"
	}
	for _, c := range []struct {
		name   string
		spec   childSpec
		begun  int
		leased int
		within time.Duration // from freezing to the others having handled everything
	}{
		// 10 s is idle_in_transaction_session_timeout of receive connections.
		{"held", childSpec{HoldLimit: 5 * time.Second, Connections: 1, Concurrency: 4}, 4, 0, 10*time.Second + 5*time.Second},
		{"leased", childSpec{HoldLimit: 20 * time.Millisecond, Connections: 1, Concurrency: 4}, 4, 4, crashLease + 5*time.Second},
		{"HandleTx", childSpec{HoldLimit: 5 * time.Second, Connections: 1, Concurrency: 4, InTx: true}, 1, 0, 10*time.Second + 5*time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newCrashSite(t)
			s.sendPerils(t, 4, c.spec.InTx, waiting)
			c.spec.URL = s.url
			frozen := spawn(t, c.spec)
			eventually(t, "the child in the midst of its messages", func() (bool, string) {
				begun, leased := count(t, s.pool, `SELECT count(*) FROM began`), count(t, s.pool, `SELECT count(*) FROM sqlq.leased`)
				return begun == c.begun && leased == c.leased, fmt.Sprint(begun, " begun, ", leased, " leased")
			})
			if err := frozen.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			stopped := time.Now()
			stop := s.handle(t, c.spec.InTx)
			eventuallyCount(t, s.pool, 0, everywhere)
			if took := time.Since(stopped); took > c.within {
				t.Errorf("it took %v until the others had handled the messages of the frozen process, want %v at most", took, c.within)
			} else {
				t.Logf("handled %v after the freeze", took.Round(time.Millisecond))
			}
			s.once(t, 4, aftermaths, "sent by handlers")
			stop() // what comes now is the child's

			if err := frozen.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(frozen.input, "go\n"); err != nil {
				t.Fatal(err)
			}
			if !c.spec.InTx {
				// The handlers of the child end, each after somebody else's.
				eventuallyCount(t, s.pool, 4, `SELECT count(*) FROM handled WHERE pid = $1`, frozen.Process.Pid)
			}
			for n := 4; n < 8; n++ {
				m := sqlq.Message(peril{N: n})
				if c.spec.InTx {
					m = perilTx{peril{N: n}}
				}
				if err := s.Send(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			eventuallyCount(t, s.pool, 0, everywhere)
			frozen.finish(t) // which settles what it may think is its own

			s.once(t, 8, aftermaths, "sent by handlers")
			if c.spec.InTx {
				s.once(t, 8, `SELECT n FROM effect`, "effects")
				s.once(t, 4, fmt.Sprintf(`SELECT n FROM effect WHERE pid = %d`, os.Getpid()), "effects of this process")
			} else {
				s.once(t, 4, fmt.Sprintf(`SELECT n FROM handled WHERE pid = %d`, os.Getpid()), "handled by this process")
			}
			if n := count(t, s.pool, everywhere); n != 0 {
				t.Errorf("%d messages are back", n)
			}
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL AND crashed_at IS NULL`); n != 0 {
				t.Errorf("%d instances are taken for alive", n)
			}
		})
	}
}
