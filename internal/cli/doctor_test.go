package cli

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// On a terminal --fix asks first, and what is too long for a line goes on below.
func TestDoctorOnTerminal(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now() - interval '1 h', gen_random_uuid(), 'delay', 'gone', 'T', '')`); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := command(t, "n\n", "--database-url="+url, "doctor", "--fix", "--within", "1m")
	if code != exitError || !strings.Contains(stderr, "This will fix 1 finding") || !strings.Contains(stderr, "nothing was done") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	for line := range strings.Lines(out) {
		if plain := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[31m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(strings.TrimSuffix(line, "\n")); len([]rune(plain)) > 80 {
			t.Errorf("wider than the terminal: %q", plain)
		}
	}
	if code, out, stderr = command(t, "y\n", "--database-url="+url, "doctor", "--fix", "--within", "1m"); code != 0 || !strings.Contains(out, "moved 1 delayed message") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
}

// A transaction that has been open for too long and a transaction pooler are named, with the backend and what to do.
func TestDoctorNames(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'nightly report'`, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	through := bouncer.Start(t, url, bouncer.Options{}).URL(conn.Config().Database)
	code, out, stderr := command(t, "", "--database-url="+through, "doctor", "--long", "1ns", "--within", "1m")
	if code != exitFindings {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	for _, want := range []string{"warning  pooler          a transaction pooler, such as PgBouncer, stands between",
		"  transactions    a transaction has been open for ", "idle in transaction: BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 'nightly report'",
		"fix, SQL      SELECT pg_terminate_backend(", "skipped  listen          not through a transaction pooler"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}

	// A pooler that is known to be there does not make the exit code.
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	for _, known := range []string{"--known=pooler", "--listen-url=" + url} {
		code, out, stderr = command(t, "", "--database-url="+through, "doctor", "--within", "1m", known)
		if code != 0 || !strings.Contains(out, "note     pooler ") || strings.Contains(out, "ok       listen ") != strings.HasPrefix(known, "--listen") {
			t.Errorf("%s: exit code %d\n%s%s", known, code, out, stderr)
		}
	}
}

// For programs a finding has a code, and a subject where it is not about the database as a whole.
func TestDoctorCodesInJSON(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for _, args := range [][]string{{"queue", "create", "sales"}, {"queue", "pause", "sales", "--yes"}} {
		if code, out, stderr := command(t, "", append([]string{"--database-url=" + url}, args...)...); code != 0 {
			t.Fatalf("%q: exit code %d\n%s%s", args, code, out, stderr)
		}
	}
	code, out, stderr := command(t, "", "--database-url="+url, "doctor", "--within", "1m", "-o", "json")
	if code != exitFindings {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	var checks []struct {
		Findings []struct {
			Code    string
			Subject *struct{ Kind, Name string }
		}
	}
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	var paused int
	for _, c := range checks {
		for _, f := range c.Findings {
			if f.Code == "queue-paused" && f.Subject != nil && f.Subject.Kind == "queue" && f.Subject.Name == "sales" {
				paused++
			}
		}
	}
	if paused != 1 {
		t.Errorf("%d findings of a paused queue, want 1:\n%s", paused, out)
	}

	// About the database as a whole.
	if code, out, stderr = command(t, "", "--database-url="+url, "--schema=other", "doctor", "--within", "1m", "-o", "json"); code != exitFindings {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	checks = nil
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	for _, c := range checks {
		for _, f := range c.Findings {
			if f.Code == "schema-missing" && f.Subject == nil {
				return
			}
		}
	}
	t.Errorf("no schema-missing without a subject in\n%s", out)
}
