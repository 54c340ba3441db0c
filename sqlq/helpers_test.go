package sqlq_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// patience bounds every wait of a test for a state: far beyond what the state takes, even on a busy machine.
const patience = 30 * time.Second

// quietLog drops what the library logs.
var quietLog = slog.New(slog.DiscardHandler)

// newPool opens a pool on a fresh migrated database.
func newPool(t testing.TB) *pgxpool.Pool { return poolOn(t, pgtest.Database(t)) }

func poolOn(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// open opens a Client, closed when the test ends.
func open(t testing.TB, pool *pgxpool.Pool, config sqlq.Config) *sqlq.Client {
	t.Helper()
	if config.Logger == nil {
		config.Logger = quietLog
	}
	c, err := sqlq.Open(t.Context(), pool, config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run starts endpoints; the returned function drains them and waits. It is called at the end of the test anyway.
func run(t testing.TB, c *sqlq.Client, endpoints ...sqlq.Endpoint) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, endpoints...) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run did not return after its context ended")
		}
	}
	t.Cleanup(stop)
	return stop
}

// statsOf returns the statistics of a client's only endpoint, which are there once Run has begun.
func statsOf(c *sqlq.Client) (s sqlq.EndpointStats) {
	if all := c.Stats().Endpoints; len(all) > 0 {
		s = all[0]
	}
	return s
}

// eventually waits until the state holds; describe says what was seen last when it does not.
func eventually(t testing.TB, what string, holds func() (ok bool, describe string)) {
	t.Helper()
	began, deadline := time.Now(), time.NewTimer(patience)
	defer deadline.Stop()
	for {
		ok, describe := holds()
		if ok {
			return
		}
		select {
		case <-time.After(min(max(5*time.Millisecond, time.Since(began)/20), 25*time.Millisecond)): // the longer it takes, the less often it is asked
		case <-deadline.C:
			t.Fatalf("%s: not so after %v: %s", what, patience, describe)
		}
	}
}

// eventuallyCount waits until a query that returns one number returns want.
func eventuallyCount(t testing.TB, pool *pgxpool.Pool, want int, query string, args ...any) {
	t.Helper()
	eventually(t, query, func() (bool, string) {
		got := count(t, pool, query, args...)
		return got == want, fmt.Sprintf("got %d, want %d", got, want)
	})
}

// count runs a query that returns one number.
func count(t testing.TB, pool *pgxpool.Pool, query string, args ...any) int {
	t.Helper()
	var n int
	if err := pool.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// execSQL runs a statement that must succeed.
func execSQL(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// noRetry fails a message at its first error.
var noRetry = sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{}}

// logged keeps what the library logs at level Warn and above.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Write implements io.Writer.
func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
