//go:build unix

package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// However a benchmark is ended, its receiving processes end too. After Ctrl-C the schema is gone as well; where it could
// not be dropped, the next run says so.
func TestBenchIsEnded(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	bin := program(t)
	start := func() (*exec.Cmd, *bytes.Buffer) {
		c := exec.Command(bin, "bench", "notify", "-n", "1000", "--concurrency", "2", "--duration", "1h", "--database-url", url)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		said := &bytes.Buffer{}
		c.Stderr = said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		awaitCount(t, conn, 1, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sqlq listen'`)
		return c, said
	}
	const sessions = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'sqlq%'`
	const schemas = `SELECT count(*) FROM pg_namespace WHERE nspname = 'sqlq_bench'`

	c, said := start()
	if err := syscall.Kill(-c.Process.Pid, syscall.SIGINT); err != nil { // as the terminal does: to all of the group
		t.Fatal(err)
	}
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(said.String(), "sqlq: interrupted") {
		t.Errorf("after Ctrl-C: exit code %d\n%s", code, said)
	}
	awaitCount(t, conn, 0, sessions)
	var left int
	if err := conn.QueryRow(t.Context(), schemas).Scan(&left); err != nil || left != 0 {
		t.Errorf("after Ctrl-C %d schemas are left (%v); it said:\n%s", left, err, said)
		if _, err := conn.Exec(t.Context(), `DROP SCHEMA IF EXISTS sqlq_bench CASCADE`); err != nil {
			t.Fatal(err)
		}
	}

	c, _ = start()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	awaitCount(t, conn, 0, sessions)
	awaitCount(t, conn, 1, schemas)
}

// awaitCount waits until a query returns a number.
func awaitCount(t *testing.T, conn *pgx.Conn, want int, query string) {
	t.Helper()
	deadline, tick := time.After(30*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		var got int
		if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: got %d, want %d", query, got, want)
		}
	}
}
