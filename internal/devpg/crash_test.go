//go:build unix

package devpg

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func durable(o *Options) { o.Durable = true }

func execute(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// After a crash, what was committed is there and what was not is gone; every process of the server has gone with it, and the
// next one has its address.
func TestCrashAndRestart(t *testing.T) {
	root := tempDir(t)
	s := start(t, durable)
	execute(t, s.URL(""), `CREATE TABLE kept (n int)`, `INSERT INTO kept VALUES (1)`)
	conn, err := pgx.Connect(t.Context(), s.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `BEGIN; INSERT INTO kept VALUES (2)`); err != nil {
		t.Fatal(err)
	}
	first, children, done := s.PID(), []int(nil), s.Done()
	if children, err = childrenOf(first); err != nil || len(children) < 3 {
		t.Fatalf("the server's processes are %v, %v", children, err)
	}
	for range 2 { // the second time is no error
		if err := s.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "Done", done)
	for _, pid := range append(children, first) {
		if !isGone(pid) && !isZombie(pid) {
			t.Errorf("process %d of the server survived its crash", pid)
		}
	}
	if _, err := conn.Exec(t.Context(), `COMMIT`); err == nil || answers(s.URL("")) {
		t.Errorf("a server that crashed answers")
	}
	for range 2 { // after a crash, and while it is running
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := query(t, s.URL(""), `SELECT string_agg(n::text, ' ') FROM kept`); got != "1" {
			t.Errorf("after the crash there is %s, want what was committed: 1", got)
		}
		if s.PID() == first || isGone(s.PID()) {
			t.Errorf("PID is %d, that of the first was %d", s.PID(), first)
		}
		first = s.PID()
	}
	if err := s.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil { // works on a server that is down, too
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err == nil {
		t.Error("a server without data was started")
	}
	checkEmpty(t, root)
}

// A killed process stays in the list until its parent has waited for it, which can be slow.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// If a restart fails, the data stays, and another one can follow.
func TestRestartFails(t *testing.T) {
	root := tempDir(t)
	s := start(t, durable)
	execute(t, s.URL(""), `CREATE TABLE kept (n int)`, `INSERT INTO kept VALUES (1)`)
	if err := s.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Restart(over); err == nil {
		t.Error("it ignored its context")
	}
	if err := s.folder.write("data/postgresql.auto.conf", "no_such_setting = 1\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("the error does not quote the log: %v", err)
	}
	if err := os.Truncate(filepath.Join(s.folder.data(), "postgresql.auto.conf"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s.URL(""), `SELECT count(*)::text FROM kept`); got != "1" {
		t.Errorf("%s rows, want 1", got)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, root)
}

// The folder is removed with the process that made it even if its server has crashed or was restarted.
func TestParentKilledAfterCrash(t *testing.T) {
	for _, do := range []string{"crash", "restart", "standby"} {
		t.Run(do, func(t *testing.T) {
			root := tempDir(t)
			t.Setenv("DEVPG_TEST_DO", do)
			cmd, s, free := startChild(t)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			await(t, "the server to go when its parent is killed", free)
			if answers(s.URL) {
				t.Error("the server survived its parent")
			}
			for late := time.After(time.Minute); ; {
				entries, err := os.ReadDir(root)
				if err != nil || len(entries) == 0 {
					break
				}
				select {
				case <-late:
					t.Fatalf("%s was left behind", entries[0].Name())
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
}
