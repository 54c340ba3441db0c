package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// A batch that is not done by the hold limit is leased whole, and settled when its handler has ended.
func TestBatchIsLeasedWhole(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails ", fails), func(t *testing.T) {
			t.Parallel()
			s := newBatchSite(t, false, sqlq.Config{HoldLimit: 20 * time.Millisecond})
			goOn := make(chan struct{})
			s.before = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
				if <-goOn; fails && len(ds) > 1 {
					return errors.New("as a batch")
				}
				return nil
			}
			const messages = 20
			send(t, s.Client, numbered(messages)...)
			stop := run(t, s.Client, s.endpoint(100))
			eventuallyCount(t, s.pool, messages, `SELECT count(*) FROM sqlq.leased WHERE attempt = 0`)
			if n := s.count(`SELECT count(*) FROM sqlq.q_ledger`); n != 0 {
				t.Errorf("%d are in the queue, too", n)
			}
			close(goOn)
			s.settled(t)
			stop()
			s.handledOnce(t, upTo(messages)...)
			if calls, want := s.sizes(), 1; !fails && len(calls) != want || fails && len(calls) != 1+messages {
				t.Errorf("calls with so many messages: %v", calls)
			}
		})
	}
}

// A call occupies one slot, however many messages it has.
func TestBatchOccupiesOneSlot(t *testing.T) {
	t.Parallel()
	s := newBatchSite(t, false, sqlq.Config{HoldLimit: 20 * time.Millisecond})
	const messages, most, slots = 100, 10, 2
	var running atomic.Int32
	goOn := make(chan struct{})
	s.before = func(context.Context, pgx.Tx, []*sqlq.BatchDelivery[entry]) error {
		if n := running.Add(1); n > slots {
			t.Errorf("%d calls at a time", n)
		}
		defer running.Add(-1)
		<-goOn
		return nil
	}
	send(t, s.Client, numbered(messages)...)
	e := s.endpoint(most)
	e.Concurrency = slots
	stop := run(t, s.Client, e)
	eventuallyCount(t, s.pool, slots*most, `SELECT count(*) FROM sqlq.leased`)
	if n := running.Load(); n != slots {
		t.Errorf("%d calls at a time, want %d", n, slots)
	}
	close(goOn)
	s.settled(t)
	stop()
	s.handledOnce(t, upTo(messages)...)
}

// A drain that does not wait for a batch gives all its messages back, and no attempt is counted.
func TestBatchDrain(t *testing.T) {
	t.Parallel()
	for _, heeds := range []bool{false, true} {
		t.Run(fmt.Sprint("heeds its context ", heeds), func(t *testing.T) {
			t.Parallel()
			inBothKinds(t, sqlq.Config{HoldLimit: 20 * time.Millisecond, DrainTimeout: 10 * time.Millisecond}, func(t *testing.T, s *batchSite) {
				if s.inTx && !heeds {
					return // the drain ends its connection: TestAbandonedHandlerBehindBouncer and others
				}
				begun, end := make(chan struct{}), make(chan struct{})
				s.before = func(ctx context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
					ds[0].Fail(errors.New("perhaps because the context has ended"))
					close(begun)
					if <-ctx.Done(); heeds {
						return ctx.Err()
					}
					<-end
					return nil
				}
				const messages = 20
				send(t, s.Client, numbered(messages)...)
				stop := run(t, s.Client, s.endpoint(100))
				<-begun
				stop()
				close(end)
				if n := s.count(`SELECT count(*) FROM sqlq.q_ledger WHERE attempt = 0`); n != messages {
					t.Errorf("%d of %d are in their queue again", n, messages)
				}
				s.handledOnce(t)
			})
		})
	}
}

// After a crash of a process of the endpoint, what that one may have had in hand is handled one at a time.
func TestBatchAfterACrash(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		crashLately(t, s.pool, "ledger")
		const messages = 20
		send(t, s.Client, numbered(messages)...)
		execSQL(t, s.pool, `INSERT INTO sqlq.q_ledger (id, sent_at, type, headers, body) VALUES (sqlq.uuid_v7(), now() - interval '1 s', 'ledger.Entry', '{"sqlq-crashes":"1"}', '{"N":20}')`)
		stop := run(t, s.Client, s.endpoint(100))
		s.settled(t)
		if calls := s.sizes(); slices.Max(calls) != 1 {
			t.Errorf("calls with so many messages: %v, want one each", calls)
		}
		send(t, s.Client, entry{N: 21}, entry{N: 22})
		s.settled(t)
		stop()
		s.handledOnce(t, upTo(23)...)
	})
}

// Handlers of all kinds share an endpoint, and the messages of a fetch.
func TestBatchBesideOtherHandlers(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		var single, batched atomic.Int32
		e := s.endpoint(1000)
		e.Handlers = append(e.Handlers,
			sqlq.Handle(func(context.Context, *sqlq.Delivery[chore]) error { single.Add(1); return nil }),
			sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error { single.Add(1); return nil }),
			sqlq.HandleBatch(sqlq.Batch{Most: 7}, func(_ context.Context, ds []*sqlq.BatchDelivery[hop]) error {
				batched.Add(int32(len(ds)))
				return nil
			}))
		var batch []sqlq.Envelope
		const each = 40
		for n := range each {
			for _, m := range []sqlq.Message{entry{N: n}, chore{N: n}, letter{N: n}, hop{}} {
				batch = append(batch, sqlq.Envelope{Message: m, Options: []sqlq.SendOption{sqlq.To("ledger")}})
			}
		}
		if _, err := s.SendBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		stop := run(t, s.Client, e)
		s.settled(t)
		stop()
		s.handledOnce(t, upTo(each)...)
		if single.Load() != 2*each || batched.Load() != each {
			t.Errorf("%d by themselves and %d together, want %d and %d", single.Load(), batched.Load(), 2*each, each)
		}
		if calls := s.sizes(); len(calls) > each/4 {
			t.Errorf("calls with so many messages: %v", calls)
		}
	})
}

// TxBatch bounds how many calls share a transaction, and not how many messages a call gets.
func TestBatchAndTxBatch(t *testing.T) {
	t.Parallel()
	s := newBatchSite(t, true, sqlq.Config{ReceiveConnections: 1})
	execSQL(t, s.pool, `CREATE TABLE written (x bigint NOT NULL)`)
	write := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO public.written VALUES (txid_current())`)
		return err
	}
	s.after = func(ctx context.Context, tx pgx.Tx, _ []*sqlq.BatchDelivery[entry]) error { return write(ctx, tx) }
	e := s.endpoint(10)
	e.TxBatch = 1
	e.Handlers = append(e.Handlers, sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, _ *sqlq.Delivery[chore]) error { return write(ctx, tx) }))
	var batch []sqlq.Envelope
	const each = 20
	for n := range each {
		for _, m := range []sqlq.Message{entry{N: n}, chore{N: n}} {
			batch = append(batch, sqlq.Envelope{Message: m, Options: []sqlq.SendOption{sqlq.To("ledger")}})
		}
	}
	if _, err := s.SendBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	stop := run(t, s.Client, e)
	s.settled(t)
	stop()
	s.handledOnce(t, upTo(each)...)
	calls := s.sizes()
	if n, want := s.count(`SELECT count(DISTINCT x) FROM written`), len(calls)+each; n != want {
		t.Errorf("%d transactions for %d calls", n, want)
	}
	if slices.Max(calls) == 1 {
		t.Errorf("calls with so many messages: %v, want several in some", calls)
	}
}

// A batch handler does not have its endpoint fetch what other handlers cannot begin.
func TestBatchHandlerHasNoMoreFetchedThanBegins(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{ReceiveConnections: 1}, func(t *testing.T, s *batchSite) {
		const messages = 1500
		var ms []sqlq.Envelope
		for n := range messages {
			ms = append(ms, sqlq.Envelope{Message: chore{N: n}, Options: []sqlq.SendOption{sqlq.To("ledger")}})
		}
		if _, err := s.SendBatch(t.Context(), ms); err != nil {
			t.Fatal(err)
		}
		e := s.endpoint(1000)
		e.Handlers = append(e.Handlers, sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[chore]) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, d.Message.N)
			return err
		}))
		stop := run(t, s.Client, e)
		s.settled(t)
		var stats sqlq.EndpointStats
		eventually(t, "counted", func() (bool, string) { // which follows the commit
			stats = statsOf(s.Client)
			return stats.Handled == messages, fmt.Sprintf("%+v", stats)
		})
		stop()
		if stats.Received > 4*messages {
			t.Errorf("%d messages were received for %d that were handled", stats.Received, stats.Handled)
		}
	})
}

// A type that always fails is slowed down, and the messages of others are handled in batches meanwhile.
func TestBatchBesidePoison(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		e := s.endpoint(100)
		e.Handlers = append(e.Handlers, sqlq.HandleBatch(sqlq.Batch{}, func(context.Context, []*sqlq.BatchDelivery[chore]) error { return errors.New("poisoned") }))
		var batch []sqlq.Envelope
		for n := range 100 {
			batch = append(batch, sqlq.Envelope{Message: chore{N: n}, Options: []sqlq.SendOption{sqlq.To("ledger")}})
		}
		for n := range 50 {
			batch = append(batch, sqlq.Envelope{Message: entry{N: n}})
		}
		if _, err := s.SendBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		stop := run(t, s.Client, e)
		eventuallyCount(t, s.pool, 0, `SELECT count(*) FROM sqlq.q_ledger WHERE type = 'ledger.Entry'`)
		stop()
		s.handledOnce(t, upTo(50)...)
		if left := s.count(`SELECT count(*) FROM sqlq.q_ledger WHERE attempt = 0`); left == 0 {
			t.Error("all messages of the type that fails were tried")
		}
	})
}

// Each message of a batch is observed as one that is handled by itself.
func TestBatchObserved(t *testing.T) {
	t.Parallel()
	type key struct{}
	var begun, decided, complete, failed, undone, sentWith atomic.Int32
	observer := &sqlq.Observer{
		Begun: func(ctx context.Context, a sqlq.ObservedAttempt) context.Context {
			begun.Add(1)
			return context.WithValue(ctx, key{}, a.ID)
		},
		Decided: func(ctx context.Context, a sqlq.ObservedAttempt) {
			if decided.Add(1); ctx.Value(key{}) != a.ID {
				t.Errorf("message %v is decided with the context of %v", a.ID, ctx.Value(key{}))
			}
			switch a.Outcome {
			case sqlq.OutcomeComplete:
				complete.Add(1)
			case sqlq.OutcomeFail:
				failed.Add(1)
			case sqlq.OutcomeUndone:
				undone.Add(1)
			}
		},
		Sent: func(ctx context.Context, m sqlq.ObservedSend) {
			if m.Gathered && ctx.Value(key{}) == m.Handling {
				sentWith.Add(1)
			}
		},
	}
	s := newBatchSite(t, true, sqlq.Config{Observer: observer})
	s.after = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
		for _, d := range ds {
			if d.Message.N == 5 {
				return errors.New("poisoned")
			}
		}
		return nil
	}
	const messages = 20
	send(t, s.Client, numbered(messages)...)
	stop := run(t, s.Client, s.endpoint(100))
	eventuallyCount(t, s.pool, 1, `SELECT count(*) FROM sqlq.error`)
	s.settled(t)
	stop()
	if begun.Load() != decided.Load() || complete.Load() != messages-1 || failed.Load() != 1 || undone.Load() < messages || sentWith.Load() < 2*messages {
		t.Errorf("%d begun, %d decided: %d complete, %d failed, %d undone; %d sent with the context of their message", begun.Load(), decided.Load(), complete.Load(), failed.Load(), undone.Load(), sentWith.Load())
	}
}

// What is said when it is too late changes nothing, and is logged.
func TestBatchFailedTooLate(t *testing.T) {
	t.Parallel()
	var log logged
	s := newBatchSite(t, false, sqlq.Config{Logger: log.logger()})
	late := make(chan *sqlq.BatchDelivery[entry], 2)
	s.before = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error { late <- ds[0]; return nil }
	send(t, s.Client, numbered(2)...)
	stop := run(t, s.Client, s.endpoint(100))
	s.settled(t)
	stop()
	if d := <-late; d.Failure() != nil {
		t.Error("it has failed")
	} else if d.Fail(errors.New("too late")); d.Failure() != nil || !strings.Contains(log.all(), "too late") {
		t.Errorf("failed: %v; logged: %s", d.Failure(), log.all())
	}
}

// What batch handlers cannot do is refused before anything is handled.
func TestBatchRefuses(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	handle := func(context.Context, []*sqlq.BatchDelivery[entry]) error { return nil }
	handleTx := func(context.Context, pgx.Tx, []*sqlq.BatchDelivery[entry]) error { return nil }
	through := []func(sqlq.HandleFunc) sqlq.HandleFunc{func(next sqlq.HandleFunc) sqlq.HandleFunc { return next }}
	plain, middle := open(t, pool, sqlq.Config{}), open(t, pool, sqlq.Config{HandleMiddleware: through})
	for i, refused := range []struct {
		by   *sqlq.Client
		e    sqlq.Endpoint
		want string
	}{
		{plain, sqlq.Endpoint{Handlers: []sqlq.Handler{sqlq.HandleBatch(sqlq.Batch{Most: -1}, handle)}}, "Most -1: it must be from 1 to 1,000"},
		{plain, sqlq.Endpoint{Handlers: []sqlq.Handler{sqlq.HandleBatchTx(sqlq.Batch{Most: 1001}, handleTx)}}, "Most 1001"},
		{plain, sqlq.Endpoint{AtMostOnce: true, Handlers: []sqlq.Handler{sqlq.HandleBatch(sqlq.Batch{}, handle)}}, "AtMostOnce and a batch handler"},
		{plain, sqlq.Endpoint{Otherwise: sqlq.HandleBatch(sqlq.Batch{}, handle)}, "Otherwise is a handler for message type"},
		{plain, sqlq.Endpoint{Middleware: through, Handlers: []sqlq.Handler{sqlq.HandleBatch(sqlq.Batch{}, handle)}}, "Endpoint.Middleware and a batch handler for \"ledger.Entry\""},
		{middle, sqlq.Endpoint{Handlers: []sqlq.Handler{sqlq.HandleBatchTx(sqlq.Batch{}, handleTx)}}, "set Batch.NoMiddleware"},
	} {
		refused.e.Name = "ledger"
		if err := refused.by.Run(t.Context(), refused.e); !errors.Is(err, sqlq.ErrInvalidEndpoint) || !strings.Contains(err.Error(), refused.want) {
			t.Errorf("%d: %v, want %s", i, err, refused.want)
		}
	}
	for name, make := range map[string]func(){
		"no batch handlers for raw messages": func() {
			sqlq.HandleBatch(sqlq.Batch{}, func(context.Context, []*sqlq.BatchDelivery[sqlq.Raw]) error { return nil })
		},
		"is an interface": func() {
			sqlq.HandleBatch(sqlq.Batch{}, func(context.Context, []*sqlq.BatchDelivery[sqlq.Message]) error { return nil })
		},
	} {
		if said := panicOf(make); !strings.Contains(said, name) {
			t.Errorf("panics with %q, want %q", said, name)
		}
	}
}

func panicOf(f func()) (said string) {
	defer func() { said = fmt.Sprint(recover()) }()
	f()
	return said
}

// With NoMiddleware a batch handler does without, for a single message too, and others of the endpoint have it.
func TestBatchWithoutMiddleware(t *testing.T) {
	t.Parallel()
	var wrapped atomic.Int32
	s := newBatchSite(t, true, sqlq.Config{HandleMiddleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{func(next sqlq.HandleFunc) sqlq.HandleFunc {
		return func(ctx context.Context, in *sqlq.Incoming) error { wrapped.Add(1); return next(ctx, in) }
	}}})
	e := s.endpoint(1)
	e.Handlers = []sqlq.Handler{s.handler(sqlq.Batch{NoMiddleware: true}), sqlq.Handle(func(context.Context, *sqlq.Delivery[chore]) error { return nil })}
	send(t, s.Client, numbered(20)...)
	if err := s.Send(t.Context(), chore{}, sqlq.To("ledger")); err != nil {
		t.Fatal(err)
	}
	stop := run(t, s.Client, e)
	s.settled(t)
	send(t, s.Client, entry{N: 20})
	s.settled(t)
	stop()
	s.handledOnce(t, upTo(21)...)
	if n := wrapped.Load(); n != 1 {
		t.Errorf("the middleware ran %d times, want once", n)
	}
}
