package trial

import (
	"context"
	"math/rand/v2"
	"os"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// crashFaults takes the server down as a whole, and up again.
type crashFaults struct{ *trial }

func (t crashFaults) lane() lane {
	return lane{name: "crashes", shortest: 4 * time.Second, pause: 9 * time.Second, faults: []fault{
		{"backend_crash", t.crashBackend},
		{"server_crash", t.down("SIGKILL of all its processes", func(ctx context.Context) error { return t.site.server.Crash(ctx) })},
		{"server_stop", t.down("SIGQUIT", func(context.Context) error { return lab.Quit(t.site.server.PID()) })},
		{"server_restart", t.down("SIGINT", func(context.Context) error { return nil })},
	}}
}

// down has the server end in a way, leaves it down for a moment, and starts it again.
func (t crashFaults) down(how string, end func(context.Context) error) func(context.Context, *rand.Rand, string) bool {
	return func(ctx context.Context, r *rand.Rand, kind string) bool {
		t.room.Lock()
		defer t.room.Unlock()
		d := between(r, 0, time.Second)
		over := t.faults.struck(kind, everybody, "%s; down for %v", how, d.Round(time.Millisecond))
		defer over()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if err := end(ctx); err != nil {
			t.problem("%s: %v", kind, err)
		}
		_ = lab.Sleep(ctx, d)
		if err := t.site.server.Restart(ctx); err != nil {
			t.problem("%s: start the server again: %v", kind, err)
		}
		return true
	}
}

// crashBackend kills a server process, after which the server ends all others and recovers.
func (t crashFaults) crashBackend(ctx context.Context, r *rand.Rand, kind string) bool {
	t.room.Lock()
	defer t.room.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var pid int
	err := t.site.admin.QueryRow(ctx, `SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY random() LIMIT 1`, role).Scan(&pid)
	if err != nil {
		return false
	}
	p, err := os.FindProcess(pid)
	if err != nil || p.Kill() != nil {
		return false
	}
	over := t.faults.struck(kind, everybody, "SIGKILL of server process %d: the server recovers", pid)
	defer over()
	_ = lab.Sleep(ctx, 100*time.Millisecond)
	_ = t.site.insist(ctx, `SELECT 1`)
	return true
}
