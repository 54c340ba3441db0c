package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// batchSite is a ledger whose entries are handled by a batch handler, with or without the receive transaction. Each handled entry is sent
// on to the queue "audit" and, with the transaction, written into the table "ledger".
type batchSite struct {
	*sqlq.Client
	pool  *pgxpool.Pool
	inTx  bool
	count func(query string, args ...any) int
	// before and after are called in front of the handler's work and behind it; nil: not.
	before, after func(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error
	again         bool // a handler has committed, and so effects may be there more than once

	mu       sync.Mutex
	calls    []int         // how many messages each had
	attempts map[int][]int // the attempts of each entry that calls saw
}

// inBothKinds runs a test with HandleBatch and with HandleBatchTx.
func inBothKinds(t *testing.T, config sqlq.Config, test func(t *testing.T, s *batchSite)) {
	for _, inTx := range []bool{false, true} {
		t.Run(fmt.Sprint("in a transaction ", inTx), func(t *testing.T) {
			t.Parallel()
			test(t, newBatchSite(t, inTx, config))
		})
	}
}

func newBatchSite(t *testing.T, inTx bool, config sqlq.Config) *batchSite {
	t.Helper()
	s := &batchSite{inTx: inTx, attempts: map[int][]int{}}
	s.Client, s.pool, s.count = ledger(t, config)
	return s
}

func (s *batchSite) handler(b sqlq.Batch) sqlq.Handler {
	if s.inTx {
		return sqlq.HandleBatchTx(b, s.handle)
	}
	return sqlq.HandleBatch(b, func(ctx context.Context, ds []*sqlq.BatchDelivery[entry]) error { return s.handle(ctx, nil, ds) })
}

func (s *batchSite) endpoint(most int) sqlq.Endpoint {
	return sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{s.handler(sqlq.Batch{Most: most})}}
}

func (s *batchSite) handle(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
	s.mu.Lock()
	s.calls = append(s.calls, len(ds))
	for _, d := range ds {
		s.attempts[d.Message.N] = append(s.attempts[d.Message.N], d.Attempt)
	}
	s.mu.Unlock()
	if s.before != nil {
		if err := s.before(ctx, tx, ds); err != nil {
			return err
		}
	}
	var ns []int
	for _, d := range ds {
		if d.Failure() != nil {
			continue
		}
		ns = append(ns, d.Message.N)
		if err := d.Send(booked{d.Message.N}); err != nil {
			return err
		}
	}
	if tx != nil {
		if _, err := tx.Exec(ctx, `INSERT INTO public.ledger SELECT unnest($1::int[])`, ns); err != nil {
			return err
		}
	}
	if s.after != nil {
		return s.after(ctx, tx, ds)
	}
	return nil
}

// sizes returns how many messages each call had.
func (s *batchSite) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// attemptsOf returns the attempts of an entry that calls saw.
func (s *batchSite) attemptsOf(n int) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts[n])
}

// settled waits until nothing of the queue is left anywhere but in the error table.
func (s *batchSite) settled(t *testing.T) {
	t.Helper()
	eventuallyCount(t, s.pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_ledger) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`)
}

// handledOnce checks that each of the entries has had its effects once, and no other.
func (s *batchSite) handledOnce(t *testing.T, entries ...int) {
	t.Helper()
	queries := []string{`SELECT array_agg(n ORDER BY n) FROM (SELECT (convert_from(body, 'UTF8')::json->>'N')::int AS n FROM sqlq.q_audit) sent`}
	if s.inTx {
		queries = append(queries, `SELECT array_agg(n ORDER BY n) FROM ledger`)
	}
	for _, query := range queries {
		var got []int
		if err := s.pool.QueryRow(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if s.again {
			got = slices.Compact(got)
		}
		if !slices.Equal(got, entries) {
			t.Errorf("%s: got %v, want %v", query, got, entries)
		}
	}
}

// upTo returns the numbers below n, without some.
func upTo(n int, without ...int) (numbers []int) {
	for i := range n {
		if !slices.Contains(without, i) {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// A call gets what a fetch has brought, up to Most. Its effects, and the removal of its messages, are one transaction.
func TestBatchHandlers(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		execSQL(t, s.pool, `CREATE TABLE written (x bigint NOT NULL)`)
		s.after = func(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
			if tx == nil {
				return nil
			}
			_, err := tx.Exec(ctx, `INSERT INTO public.written VALUES (txid_current())`)
			return err
		}
		const messages, most = 500, 50
		send(t, s.Client, numbered(messages)...)
		stop := run(t, s.Client, s.endpoint(most))
		s.settled(t)
		stop()
		s.handledOnce(t, upTo(messages)...)
		calls := s.sizes()
		if most < slices.Max(calls) || len(calls) > messages/10 {
			t.Errorf("calls with so many messages, at most %d each: %v", most, calls)
		}
		if n := s.count(`SELECT count(DISTINCT x) FROM written`); n > len(calls) {
			t.Errorf("%d transactions for %d calls", n, len(calls))
		}
		if stats := s.count(`SELECT sum(handled) FROM sqlq.instance`); stats != messages {
			t.Errorf("%d messages are counted as handled", stats)
		}
	})
}

// Whatever goes wrong for one message of a batch is the failure of that one, and counts as an attempt of none of the others.
func TestBatchFailsOnlyWhoseFaultItIs(t *testing.T) {
	t.Parallel()
	const messages, poison = 40, 17
	type deed struct {
		only  string // a kind
		after bool   // when the work of the batch is done
		do    func(ctx context.Context, tx pgx.Tx, d *sqlq.BatchDelivery[entry]) error
		want  string
	}
	inSQL := func(sql string, returns bool) func(context.Context, pgx.Tx, *sqlq.BatchDelivery[entry]) error {
		return func(ctx context.Context, tx pgx.Tx, _ *sqlq.BatchDelivery[entry]) error {
			if _, err := tx.Exec(ctx, sql); returns {
				return err
			}
			return nil
		}
	}
	poisoned := errors.New("poisoned")
	for name, deed := range map[string]deed{
		"error":         {"", true, func(context.Context, pgx.Tx, *sqlq.BatchDelivery[entry]) error { return poisoned }, "poisoned"},
		"unrecoverable": {"", true, func(context.Context, pgx.Tx, *sqlq.BatchDelivery[entry]) error { return sqlq.Unrecoverable(poisoned) }, "poisoned"},
		"panic":         {"", true, func(context.Context, pgx.Tx, *sqlq.BatchDelivery[entry]) error { panic("poisoned") }, "poisoned"},
		"exit":          {"", true, func(context.Context, pgx.Tx, *sqlq.BatchDelivery[entry]) error { runtime.Goexit(); return nil }, "ended its goroutine"},
		"named":         {"", false, func(_ context.Context, _ pgx.Tx, d *sqlq.BatchDelivery[entry]) error { d.Fail(poisoned); return nil }, "poisoned"},
		"named, error": {"", true, func(_ context.Context, _ pgx.Tx, d *sqlq.BatchDelivery[entry]) error {
			d.Fail(poisoned)
			return errors.New("undo")
		}, "poisoned"},
		"named, panic": {"", true, func(_ context.Context, _ pgx.Tx, d *sqlq.BatchDelivery[entry]) error { d.Fail(poisoned); panic("undo") }, "poisoned"},
		"named, nil": {"", false, func(_ context.Context, _ pgx.Tx, d *sqlq.BatchDelivery[entry]) error {
			var e *brokenError
			d.Fail(e)
			return nil
		}, "nil pointer"},
		"named, exits": {"", false, func(_ context.Context, _ pgx.Tx, d *sqlq.BatchDelivery[entry]) error {
			d.Fail(exitingError{})
			return nil
		}, "ended its goroutine"},
		"missing queue": {"", true, func(_ context.Context, _ pgx.Tx, d *sqlq.BatchDelivery[entry]) error {
			return d.Send(booked{}, sqlq.To("missing"))
		}, "no such queue"},
		"SQL error":     {"tx", true, inSQL(`SELECT 1/0`, true), "division by zero"},
		"ignored error": {"tx", true, inSQL(`SELECT 1/0`, false), "handler returned nil after an SQL error"},
		"bad SQL first": {"tx", false, inSQL(`SELEKT`, true), "syntax error"},
		"ends the tx": {"tx", false, func(ctx context.Context, tx pgx.Tx, _ *sqlq.BatchDelivery[entry]) error {
			_, err := tx.Conn().Exec(ctx, `COMMIT`)
			return errors.Join(err, poisoned)
		}, "ended it past the tx"},
		"lost":          {"tx", true, func(ctx context.Context, tx pgx.Tx, _ *sqlq.BatchDelivery[entry]) error { return tx.Conn().Close(ctx) }, "connection was lost"},
		"at the commit": {"tx", true, inSQL(`INSERT INTO public.strict VALUES (1)`, true), "strict"},
		"in the session": {"tx", true, func(ctx context.Context, tx pgx.Tx, d *sqlq.BatchDelivery[entry]) error {
			_, err := tx.Exec(ctx, `SET LOCAL work_mem = '1MB'`)
			return errors.Join(err, poisoned)
		}, "poisoned"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test := func(t *testing.T, s *batchSite) {
				if deed.only == "tx" && !s.inTx {
					return
				}
				execSQL(t, s.pool, `CREATE TABLE strict (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO strict VALUES (1)`)
				misbehave := func(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
					for _, d := range ds {
						if d.Message.N == poison {
							return deed.do(ctx, tx, d)
						}
					}
					return nil
				}
				if s.before = misbehave; deed.after {
					s.before, s.after = nil, misbehave
				}
				send(t, s.Client, numbered(messages)...)
				stop := run(t, s.Client, s.endpoint(100))
				eventuallyCount(t, s.pool, 1, `SELECT count(*) FROM sqlq.error`)
				s.settled(t)
				stop()
				s.again = name == "ends the tx" // what shared the transaction
				s.handledOnce(t, upTo(messages, poison)...)
				if calls := s.sizes(); calls[0] != messages {
					t.Errorf("calls with so many messages: %v, want %d in the first", calls, messages)
				}
				for n := range messages {
					if attempts := s.attemptsOf(n); slices.Max(attempts) != 1 {
						t.Errorf("attempts of entry %d: %v", n, attempts)
					}
				}
				var n, attempts int
				var text string
				if err := s.pool.QueryRow(t.Context(), `SELECT (convert_from(body, 'UTF8')::json->>'N')::int, attempts, message FROM sqlq.error`).Scan(&n, &attempts, &text); err != nil {
					t.Fatal(err)
				}
				if n != poison || attempts != 1 || !strings.Contains(text, deed.want) {
					t.Errorf("entry %d has failed after %d attempts: %s; want %d after 1: %s", n, attempts, text, poison, deed.want)
				}
			}
			inBothKinds(t, sqlq.Config{}, test)
		})
	}
}

// exitingError ends the goroutine that looks at it.
type exitingError struct{}

func (exitingError) Error() string { runtime.Goexit(); return "" }

// Attempts are each message's own: a batch that fails is none, and a message that is retried is handled by itself.
func TestBatchAttemptsAreEachMessagesOwn(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		t.Run(fmt.Sprint("named ", named), func(t *testing.T) {
			t.Parallel()
			inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
				const messages, poison = 20, 3
				s.before = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
					for _, d := range ds {
						switch {
						case d.Message.N != poison:
						case d.Attempt > 1 && len(ds) > 1:
							t.Errorf("attempt %d in a call with %d messages", d.Attempt, len(ds))
						case named:
							d.Fail(errors.New("poisoned"))
						default:
							return errors.New("poisoned")
						}
					}
					return nil
				}
				send(t, s.Client, numbered(messages)...)
				e := s.endpoint(100)
				e.Retry = sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}}
				stop := run(t, s.Client, e)
				eventuallyCount(t, s.pool, 1, `SELECT count(*) FROM sqlq.error WHERE attempts = 4`)
				s.settled(t)
				stop()
				s.handledOnce(t, upTo(messages, poison)...)
				attempts := s.attemptsOf(poison)
				if again := len(attempts) > 4; again == named || !slices.Equal(slices.Compact(attempts), []int{1, 2, 3, 4}) {
					t.Errorf("attempts of the message that fails: %v, want 1 to 4, and the first with others before it is alone: %v", attempts, !named)
				}
			})
		})
	}
}

// If all messages of a batch have failed by themselves, nothing that the handler has written stays.
func TestBatchOfFailures(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		s.after = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
			for _, d := range ds {
				d.Fail(errors.New("all of them"))
				if d.Failure() == nil {
					t.Error("it has failed and has no failure")
				}
			}
			return nil
		}
		const messages = 8 // fewer than make the breaker open
		send(t, s.Client, numbered(messages)...)
		stop := run(t, s.Client, s.endpoint(100))
		eventuallyCount(t, s.pool, messages, `SELECT count(*) FROM sqlq.error WHERE attempts = 1`)
		stop()
		s.handledOnce(t)
		if calls := s.sizes(); len(calls) != 1 {
			t.Errorf("calls with so many messages: %v, want one", calls)
		}
	})
}

// What no handler can be given, and what is not to be handled, does not concern the rest of its batch.
func TestBatchAmongOthers(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{MaxBody: 1000}, func(t *testing.T, s *batchSite) {
		sender := open(t, s.pool, sqlq.Config{Routes: map[string]string{"ledger.Entry": "ledger"}})
		twice := sqlq.NewID()
		batch := []sqlq.Envelope{
			{Message: sqlq.Raw{Type: "ledger.Entry", Body: []byte(`{"N":"none"}`)}},
			{Message: entry{N: 1, Fail: strings.Repeat("x", 2000)}},
			{Message: entry{N: 2}, Options: []sqlq.SendOption{sqlq.ExpiresIn(time.Millisecond)}},
			{Message: entry{N: 3}, Options: []sqlq.SendOption{sqlq.WithID(twice)}},
			{Message: entry{N: 3}, Options: []sqlq.SendOption{sqlq.WithID(twice)}},
			{Message: sqlq.Raw{Type: "ledger.Unknown", Body: []byte(`{}`)}, Options: []sqlq.SendOption{sqlq.To("ledger")}},
		}
		for n := range 10 {
			batch = append(batch, sqlq.Envelope{Message: entry{N: 4 + n}})
		}
		if _, err := sender.SendBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		execSQL(t, s.pool, `SELECT pg_sleep(0.05)`)
		e := s.endpoint(100)
		e.Deduplicate, e.UnknownWait = time.Hour, -1
		stop := run(t, s.Client, e)
		s.settled(t)
		eventually(t, "counted", func() (bool, string) { // which follows the commit
			stats := statsOf(s.Client)
			return stats.Expired == 1 && stats.Duplicates == 1 && stats.Failed == 3, fmt.Sprintf("%+v", stats)
		})
		stop()
		s.handledOnce(t, upTo(14, 0, 1, 2)...)
		if n := s.count(`SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND error_type <> '' AND (type = 'ledger.Unknown' OR length(body) > 1000 OR message LIKE '%decode%')`); n != 3 {
			t.Errorf("%d of 3 have failed as they should", n)
		}
		if calls := s.sizes(); calls[0] != 11 {
			t.Errorf("calls with so many messages: %v, want one with 11", calls)
		}
	})
}
