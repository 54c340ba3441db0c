package sqlq_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// ordinal is an event of the type post.Ordinal followed by a number.
type ordinal struct {
	Type int `json:"-"`
	N    int64
}

func (o ordinal) MessageType() string { return fmt.Sprint("post.Ordinal", o.Type) }
func (ordinal) IsEvent()              {}

// An event that is published after a subscription was committed reaches the subscriber, however it is published and
// whatever transaction it is published in: nothing that anybody remembers of the subscriptions is older than the event.
func TestPublishAfterASubscriptionReachesIt(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['early', 'late', 'start']) q`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "start"}})

	// A handler publishes too; its message is settled, and the event stored, after it has returned.
	var handle func(d *sqlq.Delivery[letter]) error
	var mu sync.Mutex
	run(t, c, sqlq.Endpoint{Name: "start", Concurrency: 4, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			mu.Lock()
			h := handle
			mu.Unlock()
			return h(d)
		}),
	}})

	for round := range 40 {
		execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ($1, 'early')`, ordinal{Type: round}.MessageType())
		var committed atomic.Bool
		var next, before atomic.Int64
		var due, maybe sync.Map // events by number: begun after the commit, and all
		event := func() ordinal {
			o := ordinal{round, next.Add(1)}
			maybe.Store(o.N, true)
			if committed.Load() {
				due.Store(o.N, true)
			} else {
				before.Add(1)
			}
			return o
		}
		publishers := []func() error{
			func() error { return c.Publish(t.Context(), event()) },
			func() error {
				return inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, event()) })
			},
			func() error { return c.Publish(t.Context(), event(), sqlq.Delay(time.Hour)) },
			func() error { // a transaction that is older than the subscription
				return inTx(t, pool, func(tx pgx.Tx) error {
					for range 3 {
						if err := c.PublishTx(t.Context(), tx, event()); err != nil {
							return err
						}
					}
					return nil
				})
			},
			func() error {
				o := event()
				_, err := pool.Exec(t.Context(), `SELECT sqlq.publish($1, json_build_object('N', $2::bigint))`, o.MessageType(), o.N)
				return err
			},
			func() error {
				ended := make(chan error, 1)
				mu.Lock()
				handle = func(d *sqlq.Delivery[letter]) error {
					err := d.Publish(event())
					ended <- err
					return err
				}
				mu.Unlock()
				if err := c.Send(t.Context(), letter{}); err != nil {
					return err
				}
				return <-ended
			},
		}
		stop := make(chan struct{})
		var publishing sync.WaitGroup
		for _, publish := range publishers {
			publishing.Go(func() {
				for last := false; !last; {
					select {
					case <-stop:
						last = true // one more, which is surely after the commit
					default:
					}
					if err := publish(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		// Somewhere in the midst of it.
		after := time.NewTimer(time.Duration(rand.IntN(3000)) * time.Microsecond)
		<-after.C
		execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ($1, 'late')`, ordinal{Type: round}.MessageType())
		committed.Store(true)
		close(stop)
		publishing.Wait()
		eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_start) + (SELECT count(*) FROM sqlq.leased)`) // the handlers' are stored

		for queue, want := range map[string]*sync.Map{"early": &maybe, "late": &due} {
			rows, err := pool.Query(t.Context(), fmt.Sprintf(`SELECT (convert_from(body, 'UTF8')::json->>'N')::bigint FROM (
				SELECT body FROM sqlq.q_%s UNION ALL SELECT body FROM sqlq.delayed WHERE queue = '%[1]s') m`, queue))
			if err != nil {
				t.Fatal(err)
			}
			numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
			if err != nil {
				t.Fatal(err)
			}
			times := map[int64]int{}
			for _, n := range numbers {
				times[n]++
			}
			want.Range(func(n, _ any) bool {
				if times[n.(int64)] != 1 {
					t.Errorf("round %d: event %d of %d is in queue %s %d times", round, n, next.Load(), queue, times[n.(int64)])
				}
				return true
			})
		}
		execSQL(t, pool, `TRUNCATE sqlq.q_early, sqlq.q_late, sqlq.delayed`)
		if t.Failed() {
			return
		}
	}
}

// In a transaction that sees the database as it was when it began, so do the events: that is what the caller asked for.
func TestPublishInARepeatableReadTransaction(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	c := open(t, pool, sqlq.Config{})
	err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM sqlq.subscription`); err != nil { // takes the snapshot
			return err
		}
		execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
		return c.PublishTx(t.Context(), tx, posted{})
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post`); n != 0 {
		t.Errorf("%d copies, want none: the documentation says so", n)
	}
}

// An event that nobody subscribed to is stored nowhere, and that is no error.
func TestPublishWithoutSubscribers(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('other')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Other', 'other')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "relay"}})
	for _, options := range [][]sqlq.SendOption{nil, {sqlq.Delay(time.Hour)}, {sqlq.Delay(time.Millisecond)}} {
		if err := c.Publish(t.Context(), posted{}, options...); err != nil {
			t.Error(err)
		}
		if err := inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, posted{}, options...) }); err != nil {
			t.Error(err)
		}
	}
	for _, delay := range []string{"0", "1 hour"} {
		if n := count(t, pool, `SELECT sqlq.publish('post.Posted', '{}', delay => $1)`, delay); n != 0 {
			t.Errorf("publish made %d copies", n)
		}
	}
	stop := run(t, c, sqlq.Endpoint{Name: "relay", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return d.Publish(posted{}) }),
	}})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	if err := c.Send(t.Context(), letter{}); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_relay`)
	stop()
	if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.q_other) + (SELECT count(*) FROM sqlq.q_relay) + (SELECT count(*) FROM sqlq.delayed)
		+ (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.error)`); n != 0 {
		t.Errorf("%d messages are stored", n)
	}
}

// Who publishes does not notice that a subscriber's queue is dropped at that moment.
func TestPublishWhileASubscriberIsDropped(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('stays')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'stays')`)
	c := open(t, pool, sqlq.Config{})
	var sent atomic.Int64
	done := make(chan struct{})
	var publishing sync.WaitGroup
	for range 3 {
		publishing.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := c.Publish(t.Context(), posted{}); err != nil {
					t.Errorf("after %d events: %v", sent.Load(), err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for range 30 {
		execSQL(t, pool, `SELECT sqlq.create_queue('goes')`)
		execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'goes')`)
		eventually(t, "an event for both", func() (bool, string) {
			return t.Failed() || count(t, pool, `SELECT count(*) FROM sqlq.q_goes`) > 0, ""
		})
		execSQL(t, pool, `SELECT sqlq.drop_queue('goes', true)`)
	}
	close(done)
	publishing.Wait()
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_stays`); int64(n) != sent.Load() {
		t.Errorf("%d events are in the other queue, want %d", n, sent.Load())
	}
}
