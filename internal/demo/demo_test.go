package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/testdata"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// hurried is a story for tests that need not see all of it: the first orders of the file, as fast as possible.
func hurried(url string) Options {
	lines := bytes.SplitAfter(testdata.Orders, []byte("\n"))
	return Options{
		DatabaseURL: url,
		file:        bytes.Join(lines[:150], nil),
		pace:        &pace{order: time.Millisecond, delays: []time.Duration{20 * time.Millisecond, 40 * time.Millisecond}},
	}
}

// The whole file, in a database that contains other things.
func TestRun(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	before := catalogue(t, url)
	var text strings.Builder
	result, err := Run(t.Context(), Options{DatabaseURL: url, Out: &text})
	if err != nil {
		t.Fatal(err, "\n", text.String())
	}
	n := int64(len(readOrders(t)))
	if result.FailedThenReplayed == 0 || result.FailedThenReplayed > n/2 {
		t.Errorf("%d failed and were replayed", result.FailedThenReplayed)
	}
	if result.Seconds <= 0 {
		t.Errorf("it took %v seconds", result.Seconds)
	}
	want := Result{
		Orders: n, Placed: n, Billed: n, Shipped: n, Loyalty: n / 6, LoyaltyDue: n / 6,
		FailedThenReplayed: result.FailedThenReplayed, Seconds: result.Seconds,
	}
	if result != want {
		t.Errorf("result %+v, want %+v", result, want)
	}
	for _, part := range []string{
		"1  The flood", "2  Shipping comes back", "3  A bug in Sales", "4  The operator", "5  Loyalty joins late", "The audit",
		fmt.Sprintf("%d events are waiting for it", n*2/5),
		`has 0 decimals, want 2`,
		fmt.Sprintf("%d replayed", result.FailedThenReplayed),
		fmt.Sprintf("It received %d events", n/6),
	} {
		if !strings.Contains(text.String(), part) {
			t.Errorf("the story does not say %q", part)
		}
	}
	if strings.ContainsAny(text.String(), "\x1b\r") {
		t.Error("plain text has control characters")
	}
	if t.Failed() {
		t.Log(text.String())
	}
	if after := catalogue(t, url); !slices.Equal(before, after) {
		t.Errorf("the database had %q before and has %q after", before, after)
	}
}

// With a server of its own, as the command line does.
func TestRunOnThrowAwayServer(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	o := hurried("")
	o.Out = &text
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err, "\n", text.String())
	}
	if !strings.Contains(text.String(), "orders on PostgreSQL") {
		t.Error("it does not say which server it uses")
	}
}

func TestSabotageIsNoticed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sabotage         Sabotage
		lost, duplicated int64
		fault            string
	}{
		{SabotageLoss, 1, 0, "is lost from shipments"},
		{SabotageDuplicate, 0, 1, "is in invoices 2 times"},
	} {
		t.Run(string(tt.sabotage), func(t *testing.T) {
			t.Parallel()
			o := hurried(pgtest.Empty(t))
			o.Sabotage = tt.sabotage
			result, err := Run(t.Context(), o)
			if !errors.Is(err, ErrAudit) || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("error %v", err)
			}
			if result.Lost != tt.lost || result.Duplicated != tt.duplicated {
				t.Errorf("result %+v", result)
			}
		})
	}
}

func TestRunRefusesSchemaThatExists(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{queueSchema, shopSchema} {
		t.Run(schema, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Empty(t)
			query[string](t, url, `CREATE SCHEMA `+schema+`; CREATE TABLE `+schema+`.mine ()`)
			before := catalogue(t, url)
			_, err := Run(t.Context(), Options{DatabaseURL: url})
			if err == nil || !strings.Contains(err.Error(), `schema "`+schema+`" already exists`) || !strings.Contains(err.Error(), "DROP SCHEMA") {
				t.Errorf("error %v", err)
			}
			if after := catalogue(t, url); !slices.Equal(before, after) {
				t.Errorf("the database had %q before and has %q after", before, after)
			}
		})
	}
}

// Whenever it is stopped, everything ends and nothing is left behind.
func TestRunStopped(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"1  The flood", "3  A bug", "$ sqlq error replay", "5  Loyalty"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Empty(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			o := hurried(url)
			o.Out = writerFunc(func(p []byte) (int, error) {
				if bytes.Contains(p, []byte(at)) {
					stop()
				}
				return len(p), nil
			})
			result, err := Run(ctx, o)
			if !errors.Is(err, ErrStopped) || err.Error() != ErrStopped.Error() || result != (Result{}) {
				t.Errorf("result %+v, error %v", result, err)
			}
			if left := catalogue(t, url); len(left) > 0 {
				t.Errorf("it left %q", left)
			}
			deadline := time.After(10 * time.Second)
			for { // a backend ends a moment after its connection
				left := query[string](t, url, `SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'`)
				if len(left) == 0 {
					break
				}
				select {
				case <-deadline:
					t.Fatalf("still connected: %q", left)
				default:
				}
			}
		})
	}
}

func TestRunOnTerminal(t *testing.T) {
	t.Parallel()
	for _, color := range []bool{false, true} {
		t.Run(fmt.Sprintf("color %v", color), func(t *testing.T) {
			t.Parallel()
			const width = 64
			var text strings.Builder
			o := hurried(pgtest.Empty(t))
			o.Out, o.Terminal, o.Width = &text, true, width
			if color {
				o.Palette = term.NewPalette(term.ColorAlways, true)
			}
			if _, err := Run(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			styles := regexp.MustCompile(`\x1b\[[0-9]+m`)
			if styles.MatchString(text.String()) != color {
				t.Errorf("styles: %v, want %v", !color, color)
			}
			lines := strings.Split(styles.ReplaceAllString(text.String(), ""), "\r")
			if len(lines) < 10 {
				t.Errorf("%d progress lines", len(lines))
			}
			for _, line := range lines {
				if strings.Contains(line, "▕") && term.Width(line) >= width {
					t.Errorf("a progress line of %d cells on a terminal of %d: %q", term.Width(line), width, line)
				}
			}
			if last := lines[len(lines)-1]; strings.Contains(last, "▕") {
				t.Errorf("the progress line stays: %q", last)
			}
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// catalogue lists the tables and schemas of a database, except the server's own.
func catalogue(t *testing.T, url string) []string {
	t.Helper()
	return query[string](t, url, `
		SELECT n.nspname || '.' || coalesce(c.relname, '') FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid
		WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'public') ORDER BY 1`)
}

// query returns the values of a query's only column, and nothing for several statements.
func query[T any](t *testing.T, url, sql string) []T {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatal(err)
	}
	return values
}
