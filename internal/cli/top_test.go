package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/hostile"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// shop fills a database with what top shows: queues, a backlog, and a failed message.
func shop(t *testing.T) (url string, pool *pgxpool.Pool) {
	t.Helper()
	url = pgtest.Database(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	o := ops.New(pool, pgtest.Schema)
	for _, queue := range []string{"billing", "sales", "shipping"} {
		if _, err := o.Queues.Create(t.Context(), queue); err != nil {
			t.Fatal(err)
		}
	}
	bodies := []json.RawMessage{}
	for range 12 {
		bodies = append(bodies, json.RawMessage(`{"order": 17, "note": "as agreed"}`))
	}
	if _, err := o.Send(t.Context(), "sales", ops.Outgoing{Type: "sales.PlaceOrder", Headers: map[string]string{"tenant": "north"}}, bodies...); err != nil {
		t.Fatal(err)
	}
	_, err = pool.Exec(t.Context(), `
		INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, sent_at, first_failed_at, error_type, message, chain, stack, fingerprint)
		VALUES (gen_random_uuid(), 'billing', 'billing', 'shop-1', 'billing.Charge', '{"tenant": "north"}', '{"amount": 9}', 3, now(), now(),
			'*net.OpError', E'card refused\x1b[31m by the bank', ARRAY['charge', 'card refused'], 'goroutine 1 [running]', '5f2ab81c')`)
	if err != nil {
		t.Fatal(err)
	}
	return url, pool
}

func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	url, pool := shop(t)
	s := newScreen(t, 80, 24, url, "top", "--every", "100ms")

	first := s.shows("sqlq top", "QUEUE▾", "› billing", "shipping", "3 queues", "12 ready", "1 failed", `card refused\u001b[31m by`, "q quit")
	if lines := strings.Split(strings.TrimRight(first, "\n"), "\n"); len(lines) != 24 {
		t.Errorf("%d lines on a screen of 24:\n%s", len(lines), first)
	}

	// It lives: what is sent is seen.
	if _, err := ops.New(pool, pgtest.Schema).Send(t.Context(), "shipping", ops.Outgoing{Type: "shipping.Ship"}, json.RawMessage(`{}`)); err != nil {
		t.Fatal(err)
	}
	s.shows("13 ready")

	// Sort by what is ready, and the other way round.
	s.press("s")
	s.shows("READY▾")
	s.press("g")
	s.shows("› sales")
	s.press("S")
	s.shows("READY▴")
	s.press("S")

	// Filter.
	s.press("/SHIP")
	s.shows("/SHIP", "› shipping")
	s.showsNot("sales")
	s.press("\x1b")
	s.shows("sales", "q quit")

	// From a queue to its messages, and to one of them.
	s.press("/sales\r\r")
	s.shows("sqlq top › queue sales", "[ready messages]", "sales.PlaceOrder", "as agreed", "12 ready")
	s.press("j\r")
	s.shows("queue sales › message 2", `"tenant": "north"`, `"note": "as agreed"`)
	s.press("\x1b")
	s.shows("[ready messages]")
	s.press("\x1b")
	s.shows("3 queues")

	// From a group to a failed message, with all that is known of it.
	s.press("\t")
	s.shows("› 5f2ab81c")
	s.press("\r")
	s.shows("group 5f2ab81c", "billing.Charge")
	s.press("\r")
	s.shows("message 1", "billing.Charge", `card refused\u001b[31m by the bank`)
	s.press("G")
	s.shows("goroutine 1 [running]", `"amount": 9`)

	s.press("?")
	s.shows("any key goes back", "freeze the screen")
	s.press(" ")
	s.shows("goroutine 1 [running]")

	s.resize(60, 10)
	s.shows("Esc back")
	s.press("\x1b")
	s.shows("NUMBER", "Enter open")
	s.press("\x1b")
	s.shows("FAILURES", "card refused")
	s.resize(120, 40)
	s.shows("INSTANCES", "ARRIVALS", "› 5f2ab81c")

	s.press("q")
	s.ends(0)
}

// Ctrl-C leaves the terminal as it was, too.
func TestTopInterrupted(t *testing.T) {
	t.Parallel()
	s := newScreen(t, 80, 24, pgtest.Database(t), "top")
	s.shows("no queues; make one with: sqlq queue create NAME", "no failed messages")
	s.press("\x03")
	s.ends(0)
}

// A database that is lost is told of, and found again when it is back.
func TestTopLosesTheDatabase(t *testing.T) {
	t.Parallel()
	url, pool := shop(t)
	s := newScreen(t, 80, 24, url, "top", "--every", "100ms")
	s.shows("› billing")
	server, err := pgx.Connect(t.Context(), pgtest.Server(t).URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(t.Context())
	name := pgx.Identifier{pool.Config().ConnConfig.Database}.Sanitize()
	lose := func(allow bool) {
		t.Helper()
		if _, err := server.Exec(t.Context(), fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS %t`, name, allow)); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, pool.Config().ConnConfig.Database); err != nil {
			t.Fatal(err)
		}
	}
	lose(false)
	s.shows("lost since", "trying again", "› billing")
	lose(true)
	s.shows("12 ready")
	s.press("q")
	s.ends(0)
}

// SIGTERM ends it in order, too.
func TestTopTerminated(t *testing.T) {
	t.Parallel()
	s := newScreen(t, 80, 24, pgtest.Database(t), "top")
	s.shows("no failed messages")
	if err := s.program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.ends(exitInterrupted)
}

// A watched list that is longer than the screen says so, follows the screen's size, and ends with all of its last round.
func TestWatchOnAScreen(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	names := []string{"--database-url=" + url, "queue", "create"}
	for i := range 12 {
		names = append(names, fmt.Sprintf("queue-%02d", i))
	}
	if code, _, err := command(t, "", names...); code != 0 {
		t.Fatal(err)
	}
	s := newScreen(t, 80, 10, url, "queue", "ls", "--watch=100ms")
	s.shows("sqlq queue ls, every 100ms; Ctrl-C ends", "queue-04", "… 7 more lines")
	s.showsNot("queue-05")
	s.resize(80, 30)
	s.shows("queue-11")
	s.press("\x03")
	s.ends(0)
	s.shows("QUEUE ", "queue-00", "queue-11")
	s.showsNot("Ctrl-C ends")
}

// One of each hostile row neither stops the screen nor steers it.
func TestTopBesideHostileRows(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	hostile.Fill(t, url)
	s := newScreen(t, 100, 30, url, "top", "--every", "100ms")
	s.shows("sqlq top", "› good", "hostile", "2 queues", "q quit")
	s.press("j")
	s.shows("› hostile")
	s.press("\r")
	s.shows("hostile")
	s.press("q")
	s.ends(0)
}
