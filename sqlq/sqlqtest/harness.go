package sqlqtest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Harness is a database with a Client for one test, and records what is sent there. Its methods take the test, so that a
// subtest can use its parent's Harness. They are safe for concurrent use, except Drain and DrainAll: one at a time.
type Harness struct {
	URL  string        // of the test's database
	Pool *pgxpool.Pool // of connections to it

	// Client sends, and Drain handles with it.
	Client *sqlq.Client

	// Config is the Client's: what was given to Open, plus middleware that records events without subscribers. If the code
	// under test opens Clients of its own, open them with it.
	Config sqlq.Config

	// Timeout is how long Drain, DrainAll and Wait wait before the test fails. Default 30 s.
	Timeout time.Duration

	endpoints []sqlq.Endpoint
	store     *store.Schema
	own       *pgxpool.Pool // the harness's: the test's pool may have no connection left
	watched   sync.Map      // event types that are recorded
	attempts  attempts
}

// closeWithin limits how long the Client may take to close, and givenBackWithin how long its pool's users may take after that.
const (
	closeWithin     = 10 * time.Second
	givenBackWithin = 2 * time.Second
)

// Open creates a database for the test and opens a Client on it. The endpoints are prepared as by Client.Prepare: their queues
// exist, they are subscribed, their commands have a route, and the test can send to them; Drain runs them. When the test
// ends, even by a failure, the Client is closed and the database dropped.
//
// config is what the program under test would pass to sqlq.Open. Unless it says otherwise, the library logs to the test's log,
// ReceiveConnections is 2, so that many tests fit on a server, and DrainTimeout is 2 s.
func Open(t TB, config sqlq.Config, endpoints ...sqlq.Endpoint) *Harness {
	t.Helper()
	if config.Schema == "" {
		config.Schema = "sqlq"
	}
	if config.ReceiveConnections == 0 {
		config.ReceiveConnections = 2
	}
	if config.DrainTimeout == 0 {
		config.DrainTimeout = 2 * time.Second
	}
	log := &testLog{t: t}
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	h := &Harness{URL: databaseWith(t, config.Schema), Timeout: 30 * time.Second, endpoints: slices.Clone(endpoints), store: store.New(config.Schema)}
	t.Cleanup(log.end)
	h.own = h.pool(t, 2)
	h.Pool = h.pool(t, 8)
	config.SendMiddleware = append(slices.Clone(config.SendMiddleware), h.recordEvents)
	config.Observer = h.attempts.observer(config.Observer)
	h.Config = config
	ctx, cancel := context.WithTimeout(context.Background(), createWithin)
	defer cancel()
	var err error
	if h.Client, err = sqlq.Open(ctx, h.Pool, config); err != nil {
		fatalf(t, "sqlqtest: open the client: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		if err := h.Client.Close(ctx); err != nil {
			t.Errorf("sqlqtest: %v", err)
		}
	})
	if len(endpoints) > 0 {
		if err := h.Client.Prepare(ctx, endpoints...); err != nil {
			fatalf(t, "sqlqtest: %v", err)
		}
	}
	if err := h.recordSubscribed(ctx); err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	return h
}

// pool opens a pool on the test's database, and closes it when the test ends. If the test has not released all its connections,
// the pool is left open, with an error.
func (h *Harness) pool(t TB, connections int32) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(h.URL)
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		go func() { pool.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(givenBackWithin):
			t.Errorf("sqlqtest: connections of Harness.Pool that were not released: %d; end every transaction and close all rows", pool.Stat().AcquiredConns())
		}
	})
	return pool
}

// Send sends a command with the Client; an error ends the test.
func (h *Harness) Send(t TB, m sqlq.Message, options ...sqlq.SendOption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
	defer cancel()
	if err := h.Client.Send(ctx, m, options...); err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
}

// Publish publishes an event with the Client; an error ends the test.
func (h *Harness) Publish(t TB, m sqlq.Event, options ...sqlq.SendOption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
	defer cancel()
	if err := h.Client.Publish(ctx, m, options...); err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
}

// SendBatch sends and publishes a batch with the Client and returns its receipts; an error ends the test.
func (h *Harness) SendBatch(t TB, batch ...sqlq.Envelope) []sqlq.Receipt {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
	defer cancel()
	receipts, err := h.Client.SendBatch(ctx, batch)
	if err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
	return receipts
}

// Watch records events of these types that are published from now on, for Published. Only events need it that have no
// subscribers and are not published with Harness.Config, for example by the SQL function publish or by another process; and
// those published in a REPEATABLE READ transaction, which does not see subscriptions made after it began.
func (h *Harness) Watch(t TB, events ...sqlq.Event) {
	t.Helper()
	var types []string
	for _, e := range events {
		types = append(types, e.MessageType())
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
	defer cancel()
	if err := h.record(ctx, types...); err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
}

// recordEvents is the SendMiddleware that starts the recording of an event type before it is published.
func (h *Harness) recordEvents(next sqlq.SendFunc) sqlq.SendFunc {
	return func(ctx context.Context, m *sqlq.Outgoing) error {
		if m.Queue == "" { // an event
			if err := h.record(ctx, m.Type); err != nil {
				return fmt.Errorf("sqlqtest: %w", err)
			}
		}
		return next(ctx, m)
	}
}

// table returns the quoted, qualified name of a table of the schema.
func (h *Harness) table(name string) string {
	return pgx.Identifier{h.store.Name(), name}.Sanitize()
}

// testLog writes what the library logs to the test's log until the test ends: a test must not log after that.
type testLog struct {
	mu    sync.Mutex
	t     TB
	ended bool
}

// Write implements io.Writer.
func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.t.Logf("%s", bytes.TrimSpace(line))
	}
	return len(line), nil
}

func (l *testLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}
