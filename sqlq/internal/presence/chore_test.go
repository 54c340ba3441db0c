package presence

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// A chore that the role may not do is left out from then on, one that fails because of what it works on is said once and tried
// again, one that has more to do comes again soon, and what is wrong with the connection ends the housekeeping for now.
func TestChoresByTheirTable(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	k := New(Config{Store: store.New("sqlq"), Log: slog.New(slog.NewTextHandler(&said, nil))})
	k.leads = true
	ran := map[string]int{}
	var broken error
	doing := func(what string, again time.Duration, err error) func(context.Context) (time.Duration, error) {
		return func(context.Context) (time.Duration, error) { ran[what]++; return again, err }
	}
	k.chores.all = []*chore{
		{what: "count", every: time.Hour, run: doing("count", finished, nil)},
		{what: "go on", every: time.Hour, run: doing("go on", 0, nil)},
		{what: "look", every: time.Hour, run: doing("look", 0, &pgconn.PgError{Code: session.InsufficientPrivilege}), optional: "so nobody sees"},
		{what: "mend", every: time.Hour, run: doing("mend", 0, &pgconn.PgError{Code: session.DeadlockDetected})},
		{what: "break", every: time.Hour, run: func(context.Context) (time.Duration, error) { return 0, broken }},
	}
	for range 3 {
		if err := k.chores.run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for what, want := range map[string]int{"count": 1, "go on": 3, "look": 1, "mend": 3} {
		if ran[what] != want {
			t.Errorf("%q ran %d times, want %d", what, ran[what], want)
		}
	}
	for text, want := range map[string]int{"this role may not look, so nobody sees": 1, "cannot mend; it is tried again": 1} {
		if n := strings.Count(said.String(), text); n != want {
			t.Errorf("%q was said %d times, want %d:\n%s", text, n, want, said.String())
		}
	}
	broken = errors.New("cut off")
	if err := k.chores.run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("the connection was lost: %v", err)
	}
	k.leads = false
	if err := k.chores.run(t.Context()); err != nil || ran["go on"] != 4 {
		t.Errorf("a process that does not lead does chores: %v, %d", err, ran["go on"])
	}
}
