package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// failures is a database with failed messages.
type failures struct {
	t    *testing.T
	url  string
	conn *pgx.Conn
}

func fail(t *testing.T, n int) failures {
	t.Helper()
	f := failures{t: t, url: pgtest.Database(t)}
	var err error
	if f.conn, err = pgx.Connect(t.Context(), f.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.conn.Close(context.WithoutCancel(t.Context())) })
	f.exec(`SELECT sqlq.create_queue('sales')`)
	f.exec(`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		SELECT gen_random_uuid(), 'sales', 'sales', 'h1', 'T', '{}', 7, now(), now(), 'e', 'm', 'g1' FROM generate_series(1, $1::int)`, n)
	return f
}

func (f failures) exec(sql string, args ...any) {
	f.t.Helper()
	if _, err := f.conn.Exec(f.t.Context(), sql, args...); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

func (f failures) number(sql string, args ...any) (n int64) {
	f.t.Helper()
	if err := f.conn.QueryRow(f.t.Context(), sql, args...).Scan(&n); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// whole fails the test unless each of so many messages is in one place, and ready of them in the queue.
func (f failures) whole(made, ready int64) {
	f.t.Helper()
	all := f.number(`SELECT (SELECT count(*) FROM sqlq.q_sales) + (SELECT count(*) FROM sqlq.error)`)
	different := f.number(`SELECT count(*) FROM (SELECT id FROM sqlq.q_sales UNION SELECT id FROM sqlq.error) m`)
	if all != made || different != made {
		f.t.Errorf("%d messages are there, %d different ones, want %d", all, different, made)
	}
	if n := f.number(`SELECT count(*) FROM sqlq.q_sales`); n != ready {
		f.t.Errorf("%d messages are in the queue, want %d", n, ready)
	}
}

// replayUntil runs a slow replay in a process of its own until it has done some, sends it a signal, and returns its exit
// code and what it said.
func (f failures) replayUntil(signal os.Signal) (code int, stderr string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	replay := exec.CommandContext(ctx, program(f.t), "error", "replay", "--all", "--rate", "200/s", "--database-url", f.url)
	var said bytes.Buffer
	replay.Stderr = &said
	if err := replay.Start(); err != nil {
		f.t.Fatal(err)
	}
	for f.number(`SELECT coalesce(max(done), 0) FROM sqlq.operation`) == 0 {
		if ctx.Err() != nil {
			f.t.Fatal("nothing is replayed")
		}
	}
	if err := replay.Process.Signal(signal); err != nil {
		f.t.Fatal(err)
	}
	err := replay.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		f.t.Fatalf("it ended with %v: %s", err, &said)
	}
	return exit.ExitCode(), said.String()
}

// Ctrl-C ends a replay, which says how many were done and how to go on; then it goes on to the end.
func TestReplayCtrlC(t *testing.T) {
	t.Parallel()
	const total = 3000
	f := fail(t, total)
	code, said := f.replayUntil(os.Interrupt)
	done := f.number(`SELECT done FROM sqlq.operation WHERE status = 'interrupted'`)
	if code != exitInterrupted || done == 0 || done == total || !strings.Contains(said, "Go on with: sqlq operation resume 1\n") ||
		!strings.Contains(said, "interrupted: replay stopped after ") {
		t.Errorf("exit code %d, %d done: %s", code, done, said)
	}
	f.whole(total, done)
	f.exec(`UPDATE sqlq.operation SET filter = '{"all":true}'`) // without the rate: this test has no time
	code, _, said = command(t, "", "operation", "resume", "1", "--database-url", f.url)
	// Where counting took too long at the beginning it does not say of how many.
	if code != 0 || !strings.HasPrefix(strings.Replace(said, "3000 of 3000", "3000", 1), "operation 1: replay of 3000 messages is done") {
		t.Errorf("resumed: exit code %d: %s", code, said)
	}
	f.whole(total, total)
}

// A replay whose process is killed is shown as stalled before long, and is resumed.
func TestReplayKilled(t *testing.T) {
	t.Parallel()
	const total = 3000
	f := fail(t, total)
	f.replayUntil(os.Kill)
	code, _, said := command(t, "", "operation", "resume", "1", "--database-url", f.url)
	if code != exitError || !strings.Contains(said, "operation 1 is running; one whose process has died can be resumed when it has done nothing for 15s") {
		t.Errorf("resumed at once: exit code %d: %s", code, said)
	}
	f.exec(`UPDATE sqlq.operation SET filter = '{"all":true}', updated_at = updated_at - interval '1 minute'`)
	if code, out, _ := command(t, "", "operation", "ls", "--status", "stalled", "--database-url", f.url); code != 0 || !strings.Contains(out, " stalled ") {
		t.Errorf("ls: exit code %d: %s", code, out)
	}
	if code, _, said = command(t, "", "operation", "resume", "1", "--database-url", f.url); code != 0 {
		t.Errorf("resumed: exit code %d: %s", code, said)
	}
	f.whole(total, total)
}

// On a terminal what would change everything asks, and what would destroy it wants to be told so in words.
func TestChangeAsks(t *testing.T) {
	t.Parallel()
	f := fail(t, 3)
	for _, c := range []struct {
		answer string
		args   string
		code   int
		asks   string
		left   int64
	}{
		{"n\n", "replay --all", 1, "This will replay EVERY failed message, 3, in schema", 3},
		{"\n", "archive", 1, "This will archive EVERY failed message, 3, in schema", 3},
		{"y\n", "delete", 1, `Type "delete all" to go on:`, 3},
		{"n\n", "delete 1", 1, "This will delete 1 failed message in schema", 3},
		{"y\n", "delete 1", 0, ", for good.\nGo on? [y/N] ", 2},
		{"n\n", "replay 2", 0, "", 1},
		{"n\n", "delete --all --yes", 0, "", 0},
	} {
		args := append([]string{"error"}, strings.Fields(c.args)...)
		code, _, said := command(t, c.answer, append(args, "--database-url", f.url)...)
		if code != c.code || !strings.Contains(said, c.asks) || c.asks == "" && strings.Contains(said, "This will") {
			t.Errorf("%s: exit code %d: %s", c.args, code, said)
		}
		if left := f.number(`SELECT count(*) FROM sqlq.error WHERE status = 'failed'`); left != c.left {
			t.Errorf("%s: %d are left, want %d", c.args, left, c.left)
		}
	}
	f = fail(t, 2)
	if code, _, said := command(t, "delete all\n", "error", "delete", "--all", "--database-url", f.url); code != 0 || f.number(`SELECT count(*) FROM sqlq.error`) != 0 {
		t.Errorf("told in words: exit code %d: %s", code, said)
	}
}
