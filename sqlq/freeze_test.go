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
	cases := []struct {
		name   string
		spec   childSpec
		state  string
		within time.Duration // from freezing to the others having handled everything

		site    *crashSite
		frozen  *childProcess
		stopped time.Time
		stop    func() // the others
	}{
		// 10 s is idle_in_transaction_session_timeout of receive connections.
		{name: "held", spec: childSpec{HoldLimit: 5 * time.Second, Connections: 1, Concurrency: 4}, within: 10*time.Second + 5*time.Second,
			state: `SELECT (SELECT count(*) FROM began) = 4 AND NOT EXISTS (SELECT FROM sqlq.leased)`},
		{name: "leased", spec: childSpec{HoldLimit: 20 * time.Millisecond, Connections: 1, Concurrency: 4}, within: crashLease + 5*time.Second,
			state: `SELECT (SELECT count(*) FROM began) = 4 AND (SELECT count(*) FROM sqlq.leased) = 4`},
		{name: "HandleTx", spec: childSpec{HoldLimit: 5 * time.Second, Connections: 1, Concurrency: 4, InTx: true}, within: 10*time.Second + 5*time.Second,
			state: `SELECT (SELECT count(*) FROM began) = 1`},
	}
	for i := range cases {
		c := &cases[i]
		c.site = newCrashSite(t)
		c.site.sendPerils(t, 4, c.spec.InTx, waiting)
		c.spec.URL = c.site.url
		c.frozen = spawn(t, c.spec)
		c.site.inMidst(t, c.name, c.state)
		if err := c.frozen.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		c.stopped = time.Now()
		c.stop = c.site.handle(t, c.spec.InTx)
	}
	for _, i := range []int{1, 0, 2} { // those that are free first
		c := cases[i]
		c.site.empty(t, c.name, c.stopped, c.within)
		c.site.once(t, 4, aftermaths, c.name+": sent by handlers")
		c.stop() // what comes now is the child's
	}
	for _, c := range cases {
		if err := c.frozen.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c.frozen.input, "go\n"); err != nil {
			t.Fatal(err)
		}
		if !c.spec.InTx {
			// The handlers of the child end, each after somebody else's.
			eventuallyCount(t, c.site.pool, 4, `SELECT count(*) FROM handled WHERE pid = $1`, c.frozen.Process.Pid)
		}
		for n := 4; n < 8; n++ {
			m := sqlq.Message(peril{N: n})
			if c.spec.InTx {
				m = perilTx{peril{N: n}}
			}
			if err := c.site.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		c.site.empty(t, c.name+", going on", time.Now(), patience)
		c.frozen.finish(t) // which settles what it may think is its own

		c.site.once(t, 8, aftermaths, c.name+": sent by handlers")
		if c.spec.InTx {
			c.site.once(t, 8, `SELECT n FROM effect`, c.name+": effects")
			c.site.once(t, 4, fmt.Sprintf(`SELECT n FROM effect WHERE pid = %d`, os.Getpid()), c.name+": effects of this process")
		} else {
			c.site.once(t, 4, fmt.Sprintf(`SELECT n FROM handled WHERE pid = %d`, os.Getpid()), c.name+": handled by this process")
		}
		if n := count(t, c.site.pool, everywhere); n != 0 {
			t.Errorf("%s: %d messages are back", c.name, n)
		}
		if n := count(t, c.site.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL AND crashed_at IS NULL`); n != 0 {
			t.Errorf("%s: %d instances are taken for alive", c.name, n)
		}
	}
}
