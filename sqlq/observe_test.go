package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// told is an Observer's record of what it was told, in order.
type told struct {
	mu  sync.Mutex
	all []string
}

func (n *told) add(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, fmt.Sprintf(format, args...))
}

func (n *told) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = nil
}

// of returns the notes that have one of the beginnings.
func (n *told) of(beginnings ...string) (found []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, note := range n.all {
		if slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(note, b) }) {
			found = append(found, note)
		}
	}
	return found
}

// wants waits until the notes with the beginnings are these.
func (n *told) wants(t *testing.T, want []string, beginnings ...string) {
	t.Helper()
	eventually(t, "it was told", func() (bool, string) {
		got := n.of(beginnings...)
		return slices.Equal(got, want), fmt.Sprintf("\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	})
}

type spanKey struct{}

// noting returns an Observer that notes everything. Sending and Begun put a span into the context, which travels as a header.
func noting(n *told) *sqlq.Observer {
	span := func(ctx context.Context) any { return ctx.Value(spanKey{}) }
	return &sqlq.Observer{
		Sending: func(ctx context.Context, m sqlq.ObservedSend) context.Context {
			m.Headers["traceparent"] = fmt.Sprintf("span of %s", m.Type)
			n.add("sending %s to %q, event %v, %d bytes, gathered %v in %q under %v", m.Type, m.Queue, m.Event, m.Size, m.Gathered, m.Endpoint, span(ctx))
			return context.WithValue(ctx, spanKey{}, "send")
		},
		Sent: func(ctx context.Context, m sqlq.ObservedSend) {
			n.add("sent %s to %q, %d together, gathered %v, %v in %v", m.Type, m.Queue, m.Batch, m.Gathered, m.Err, span(ctx))
		},
		Published: func(ctx context.Context, m sqlq.ObservedSend) {
			n.add("published %s, %d together, gathered %v, %v in %v", m.Type, m.Batch, m.Gathered, m.Err, span(ctx))
		},
		Fetched: func(_ context.Context, f sqlq.ObservedFetch) {
			n.add("fetched %d for %s, by lease %v", f.Messages, f.Endpoint, f.ByLease)
		},
		Begun: func(ctx context.Context, a sqlq.ObservedAttempt) context.Context {
			n.add("begun %s %d in %s, in tx %v, after %s", a.Type, a.Attempt, a.Endpoint, a.InTx, a.Headers["traceparent"])
			return context.WithValue(ctx, spanKey{}, fmt.Sprintf("attempt %d", a.Attempt))
		},
		Decided: func(ctx context.Context, a sqlq.ObservedAttempt) {
			n.add("decided %s %d: %s after %v, %v in %v", a.Type, a.Attempt, a.Outcome, a.Delay, a.Err, span(ctx))
		},
		Settled: func(_ context.Context, s sqlq.ObservedSettle) {
			if s.Took <= 0 {
				n.add("settled in no time")
			}
			s.Took = 0
			n.add("settled %+v", s)
		},
		Leased:       func(_ context.Context, l sqlq.ObservedLease) { n.add("leased %d of %s", l.Messages, l.Endpoint) },
		Woken:        func(_ context.Context, w sqlq.ObservedWake) { n.add("woken %s by %s", w.Endpoint, w.By) },
		LeaderGained: func(_ context.Context, l sqlq.ObservedLead) { n.add("leader of %s gained", l.Schema) },
		LeaderLost:   func(_ context.Context, l sqlq.ObservedLead) { n.add("leader of %s lost", l.Schema) },
	}
}

// The story of an order: each thing that happens is told, in order, with a context in which a span can live.
func TestObserver(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	n := &told{}
	c := open(t, pool, sqlq.Config{Observer: noting(n), HoldLimit: 20 * time.Millisecond})
	goOn := make(chan struct{})
	sales := sqlq.Endpoint{Name: "sales", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}, Jitter: -1}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
			n.add("handled under %v", ctx.Value(spanKey{}))
			switch {
			case d.Message.N == 1:
				return errors.Join(d.Send(titled{Type: "post.Parcel"}, sqlq.To("sales")), d.Publish(posted{N: 1}))
			case d.Message.N == 2 && d.Attempt < 3:
				return errors.New("no stock")
			case d.Message.N == 3:
				return sqlq.Unrecoverable(errors.New("no such customer"))
			case d.Message.N == 4:
				<-goOn
			}
			return nil
		}),
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[posted]) error {
			n.add("handled in tx under %v", ctx.Value(spanKey{}))
			return nil
		}),
	}, UnknownWait: -1}
	stop := run(t, c, sales)
	n.wants(t, []string{"leader of sqlq gained"}, "leader")
	attempt := []string{"sending", "sent", "published", "begun", "handled", "decided", "settled"}
	send := func(what letter, options ...sqlq.SendOption) {
		t.Helper()
		n.forget()
		if err := c.Send(t.Context(), what, options...); err != nil {
			t.Fatal(err)
		}
	}

	send(letter{N: 1})
	n.wants(t, []string{
		`sending post.Parcel to "sales", event false, 7 bytes, gathered true in "sales" under attempt 1`,
		`sent post.Parcel to "sales", 1 together, gathered true, <nil> in send`,
		`sending post.Posted to "", event true, 7 bytes, gathered true in "sales" under attempt 1`,
		`published post.Posted, 1 together, gathered true, <nil> in send`,
	}, "sending post.P", "sent post.Parcel", "published")
	n.wants(t, []string{
		`begun post.Letter 1 in sales, in tx false, after span of post.Letter`,
		`handled under attempt 1`,
		`decided post.Letter 1: complete after 0s, <nil> in attempt 1`,
	}, "begun post.Letter", "handled under", "decided post.Letter")
	n.wants(t, []string{
		`begun post.Posted 1 in sales, in tx true, after span of post.Posted`,
		`handled in tx under attempt 1`,
		`decided post.Posted 1: complete after 0s, <nil> in attempt 1`,
	}, "begun post.Posted", "handled in tx", "decided post.Posted")
	n.wants(t, []string{`decided post.Parcel 1: fail after 0s, no handler for message type "post.Parcel" in endpoint "sales": add one, or replay the message to the endpoint that has in <nil>`}, "decided post.Parcel")

	eventually(t, "all of it is settled", func() (bool, string) {
		s := statsOf(c)
		return s.Handled == 2 && s.Failed == 1, fmt.Sprintf("%+v", s)
	})

	send(letter{N: 2})
	n.wants(t, []string{
		`begun post.Letter 1 in sales, in tx false, after span of post.Letter`, `handled under attempt 1`, `decided post.Letter 1: retry after 0s, no stock in attempt 1`,
		`begun post.Letter 2 in sales, in tx false, after span of post.Letter`, `handled under attempt 2`, `decided post.Letter 2: retry after 1ms, no stock in attempt 2`,
		`settled {Endpoint:sales Handled:0 Retried:1 Waiting:0 Failed:0 Expired:0 Duplicates:0 Leased:0 Sent:0 Took:0s}`,
		`begun post.Letter 3 in sales, in tx false, after span of post.Letter`, `handled under attempt 3`, `decided post.Letter 3: complete after 0s, <nil> in attempt 3`,
		`settled {Endpoint:sales Handled:1 Retried:0 Waiting:0 Failed:0 Expired:0 Duplicates:0 Leased:0 Sent:0 Took:0s}`,
	}, attempt[3:]...)

	send(letter{N: 3}, sqlq.Delay(time.Millisecond))
	n.wants(t, []string{
		`begun post.Letter 1 in sales, in tx false, after span of post.Letter`, `handled under attempt 1`, `decided post.Letter 1: fail after 0s, no such customer in attempt 1`,
		`settled {Endpoint:sales Handled:0 Retried:0 Waiting:0 Failed:1 Expired:0 Duplicates:0 Leased:0 Sent:0 Took:0s}`,
	}, attempt[3:]...)

	send(letter{N: 4})
	n.wants(t, []string{`leased 1 of sales`}, "leased")
	close(goOn)
	n.wants(t, []string{
		`settled {Endpoint:sales Handled:0 Retried:0 Waiting:0 Failed:0 Expired:0 Duplicates:0 Leased:1 Sent:0 Took:0s}`,
		`settled {Endpoint:sales Handled:1 Retried:0 Waiting:0 Failed:0 Expired:0 Duplicates:0 Leased:0 Sent:0 Took:0s}`,
	}, "settled")

	// Sending by oneself: what is stored, and what is not.
	send(letter{N: 5})
	n.wants(t, []string{
		`sending post.Letter to "sales", event false, 7 bytes, gathered false in "" under <nil>`,
		`sent post.Letter to "sales", 1 together, gathered false, <nil> in send`,
	}, "sending", "sent")
	n.wants(t, []string{`fetched 1 for sales, by lease false`}, "fetched")
	if by := n.of("woken sales by"); len(by) == 0 {
		t.Error("nobody said that the endpoint was woken")
	}
	n.forget()
	if err := c.Send(t.Context(), letter{}, sqlq.To("nowhere")); !errors.Is(err, sqlq.ErrNoQueue) || len(n.of("sent")) != 1 || !strings.Contains(n.of("sent")[0], "queue does not exist") && !strings.Contains(n.of("sent")[0], err.Error()) {
		t.Errorf("%v: %v", err, n.of("sent"))
	}
	other := open(t, pool, sqlq.Config{Observer: noting(n), Routes: map[string]string{"post.Letter": "sales"}})
	n.forget()
	if err := other.SendMany(t.Context(), []sqlq.Message{letter{N: 5}, letter{N: 5}, letter{N: 5}}); err != nil {
		t.Fatal(err)
	}
	if got := n.of(`sent post.Letter to "sales", 3 together, gathered false, <nil> in send`); len(got) != 3 {
		t.Errorf("of three that are sent together: %q", n.of("sen"))
	}
	if err := inTx(t, pool, func(tx pgx.Tx) error {
		return errors.Join(other.SendTx(t.Context(), tx, letter{N: 5}), other.PublishTx(t.Context(), tx, posted{N: 5}))
	}); err != nil || len(n.of("sent post.Letter to \"sales\", 1 together", "published")) != 2 {
		t.Errorf("%v: %q", err, n.of("sent", "published"))
	}

	// The lead is handed over.
	n.forget()
	next := &told{}
	run(t, open(t, pool, sqlq.Config{Observer: noting(next)}), sqlq.Endpoint{Name: "sales", Handlers: sales.Handlers})
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`)
	stop()
	n.wants(t, []string{"leader of sqlq lost"}, "leader")
	next.wants(t, []string{"leader of sqlq gained"}, "leader")
}

// An attempt that is undone, given back or ends its goroutine has a Decided for its Begun all the same.
func TestObserverOfEveryEnd(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	n := &told{}
	c := open(t, pool, sqlq.Config{Observer: noting(n), DrainTimeout: 10 * time.Millisecond})
	stuck := make(chan struct{})
	stop := run(t, c,
		sqlq.Endpoint{Name: "once", AtMostOnce: true, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[number]) error { panic("once") })}},
		sqlq.Endpoint{Name: "sales", Retry: noRetry, Deduplicate: time.Minute, Handlers: []sqlq.Handler{
			sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
				if d.Message.N == 1 {
					close(stuck)
					<-ctx.Done()
					return ctx.Err()
				}
				return nil
			}),
			sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[posted]) error {
				_, err := tx.Exec(ctx, `SELECT 1/0`)
				return errors.Join(err, d.Send(letter{}, sqlq.To("nowhere")))
			})}})
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.instance`)
	if err := errors.Join(c.Publish(t.Context(), posted{}), c.Send(t.Context(), number{})); err != nil {
		t.Fatal(err)
	}
	n.wants(t, []string{`decided post.Number 1: fail after 0s, panic: once in attempt 1`}, "decided post.Number")
	n.wants(t, []string{`decided post.Posted 1: fail after 0s, ERROR: division by zero (SQLSTATE 22012) in attempt 1`}, "decided post.Posted")
	id := sqlq.NewID()
	for range 2 {
		if err := c.Send(t.Context(), letter{}, sqlq.WithID(id), sqlq.To("sales")); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_sales) + (SELECT count(*) FROM sqlq.delayed)`)
	}
	n.wants(t, []string{`decided post.Letter 1: complete after 0s, <nil> in attempt 1`, `decided post.Letter 0: duplicate after 0s, <nil> in <nil>`}, "decided post.Letter")
	if err := c.Send(t.Context(), letter{N: 1}, sqlq.To("sales")); err != nil {
		t.Fatal(err)
	}
	<-stuck
	stop()
	n.wants(t, []string{`decided post.Letter 1: undone after 0s, context canceled in attempt 1`}, "decided post.Letter 1: undone")
	if begun, decided := len(n.of("begun")), len(n.of("decided")); decided != begun+1 { // of the duplicate there was no attempt
		t.Errorf("%d begun, %d decided", begun, decided)
	}
}

// A func that panics, or forgets the context, changes nothing of what becomes of messages, and is named once.
func TestObserverThatPanics(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	var said logged
	bad := &sqlq.Observer{
		Sending:      func(context.Context, sqlq.ObservedSend) context.Context { panic("Sending") },
		Sent:         func(context.Context, sqlq.ObservedSend) { panic("Sent") },
		Published:    func(context.Context, sqlq.ObservedSend) { panic(nil) },
		Fetched:      func(context.Context, sqlq.ObservedFetch) { panic(errors.New("Fetched")) },
		Begun:        func(context.Context, sqlq.ObservedAttempt) context.Context { panic("Begun") },
		Decided:      func(context.Context, sqlq.ObservedAttempt) { panic("Decided") },
		Settled:      func(context.Context, sqlq.ObservedSettle) { panic("Settled") },
		Woken:        func(context.Context, sqlq.ObservedWake) { panic("Woken") },
		LeaderGained: func(context.Context, sqlq.ObservedLead) { panic("LeaderGained") },
	}
	forgets := &sqlq.Observer{
		Sending: func(context.Context, sqlq.ObservedSend) context.Context { return nil },
		Begun:   func(context.Context, sqlq.ObservedAttempt) context.Context { return context.Background() },
	}
	for i, o := range []*sqlq.Observer{bad, forgets, {}} {
		name := fmt.Sprint("sales", i)
		c := open(t, pool, sqlq.Config{Observer: o, Logger: said.logger()})
		stop := run(t, c, sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{
			sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
				if err := c.Send(ctx, letter{}); !errors.Is(err, sqlq.ErrInHandler) {
					return sqlq.Unrecoverable(fmt.Errorf("sending by itself in a handler: %w", err))
				}
				return nil
			}),
			sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[posted]) error { return nil })}})
		eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance WHERE endpoint = $1`, name)
		for range 3 {
			if err := errors.Join(c.Send(t.Context(), letter{}, sqlq.To(name)), c.Publish(t.Context(), posted{})); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all are handled", func() (bool, string) {
			s := statsOf(c)
			return s.Handled == 6, fmt.Sprintf("%+v", s)
		})
		stop()
		execSQL(t, pool, `DELETE FROM sqlq.subscription`)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n > 0 {
		t.Errorf("%d have failed", n)
	}
	for _, name := range []string{"Sending", "Sent", "Published", "Fetched", "Begun", "Decided", "Settled", "LeaderGained"} {
		if n := strings.Count(said.all(), "Config.Observer panicked; what it does is not relied on, and it is not named again\" func="+name+" "); n != 1 {
			t.Errorf("%s was named %d times", name, n)
		}
	}
}

// The failure of a message is logged with its handler's context, as middleware has made it.
func TestFailureIsLoggedWithTheHandlersContext(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	h := &spanLog{Handler: slog.DiscardHandler, seen: make(chan string, 10)}
	c := open(t, pool, sqlq.Config{Logger: slog.New(h)})
	run(t, c, sqlq.Endpoint{Name: "sales", Retry: noRetry, Middleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{func(next sqlq.HandleFunc) sqlq.HandleFunc {
		return func(ctx context.Context, in *sqlq.Incoming) error {
			return next(context.WithValue(ctx, spanKey{}, "span 7"), in)
		}
	}}, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return errors.New("never") })}})
	if err := c.Prepare(t.Context(), sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return nil })}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), letter{}); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-h.seen:
		if got != "span 7" {
			t.Errorf("the slog.Handler found %q in the context", got)
		}
	case <-time.After(patience):
		t.Fatal("the failure was not logged")
	}
}

// spanLog is a slog.Handler that looks for a span in the contexts of failures.
type spanLog struct {
	slog.Handler
	seen chan string
}

// Enabled implements slog.Handler.
func (*spanLog) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *spanLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "sqlq: message failed" {
		l.seen <- fmt.Sprint(ctx.Value(spanKey{}))
	}
	return nil
}

// The statements of a HandleTx handler, and the one that stores a message, are traced by the pool's tracer under the Observer's
// context; the library's own are not traced.
func TestObserverAndTracer(t *testing.T) {
	t.Parallel()
	tracer := &spanTracer{seen: map[string]any{}}
	pool := poolWith(t, pgtest.Database(t), func(config *pgxpool.Config) { config.ConnConfig.Tracer = tracer })
	c := open(t, pool, sqlq.Config{Observer: noting(&told{})})
	handled := make(chan struct{})
	stop := run(t, c, sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[letter]) error {
		defer close(handled)
		if _, err := tx.Exec(ctx, `SELECT 'a first one'`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `SELECT 'of the handler'`)
		return err
	})}})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	if err := inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, letter{}, sqlq.To("sales")) }); err != nil {
		t.Fatal(err)
	}
	<-handled
	stop()
	tracer.mu.Lock()
	defer tracer.mu.Unlock()
	if got := tracer.seen[`SELECT 'of the handler'`]; got != "attempt 1" {
		t.Errorf("the handler's statement was traced under %v", got)
	}
	stored := false
	for sql, span := range tracer.seen {
		stored = stored || strings.Contains(sql, "INSERT INTO") && span == "send"
	}
	if !stored {
		t.Errorf("what stored the message was not traced under its span: %v", tracer.seen)
	}
}

// spanTracer notes under which span it saw a statement.
type spanTracer struct {
	mu   sync.Mutex
	seen map[string]any
}

// TraceQueryStart implements pgx.QueryTracer.
func (s *spanTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[data.SQL] = ctx.Value(spanKey{})
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*spanTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
