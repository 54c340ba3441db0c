package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// crashLately makes the instances of an endpoint that start receive by lease, as after a crash.
func crashLately(t testing.TB, pool *pgxpool.Pool, endpoint string) {
	t.Helper()
	execSQL(t, pool, `INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, crashed_at)
		VALUES ($1, 'elsewhere', 1, 'x', 1, false, '1 s', clock_timestamp())`, endpoint)
}

// A message is not handled after its time to live, wherever it was when that passed, and leaves no trace.
func TestExpiredIsNeverHandled(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		inTx    bool
		byLease bool
	}{{"Handle", false, false}, {"HandleTx", true, false}, {"Handle, by lease", false, true}, {"HandleTx, by lease", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			client := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			if c.byLease {
				crashLately(t, pool, "post")
			}
			const short = 30 * time.Millisecond
			send := func(n int, options ...sqlq.SendOption) {
				t.Helper()
				if err := client.Send(t.Context(), letter{N: n}, options...); err != nil {
					t.Fatal(err)
				}
			}
			send(1, sqlq.ExpiresIn(short))
			send(2, sqlq.ExpiresIn(time.Hour))
			// While it is delayed; the library would refuse it.
			execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, expires_at, why, queue, type, body)
				SELECT now + interval '60 ms', sqlq.uuid_v7(), now + interval '30 ms', 'delay', 'post', 'post.Letter', '{"N": 3}' FROM clock_timestamp() now`)
			send(4, sqlq.ExpiresIn(time.Hour), sqlq.Delay(short))
			send(5)
			send(7, sqlq.ExpiresIn(time.Microsecond))
			eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_post WHERE expires_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 minute'`)
			send(6, sqlq.ExpiresIn(time.Second)) // while it waits for its second attempt

			var mu sync.Mutex
			var handled []int
			handle := func(n int) error {
				mu.Lock()
				defer mu.Unlock()
				handled = append(handled, n)
				if n == 6 {
					return sqlq.RetryAfter(1100*time.Millisecond, errors.New("later"))
				}
				return nil
			}
			handler := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return handle(d.Message.N) })
			if c.inTx {
				handler = sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error { return handle(d.Message.N) })
			}
			stop := run(t, client, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{handler}})
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
			stop()
			slices.Sort(handled)
			if !slices.Equal(handled, []int{2, 4, 5, 6}) {
				t.Errorf("handled %v, want 2, 4, 5, and 6 once", handled)
			}
			if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n != 0 {
				t.Errorf("%d messages failed", n)
			}
		})
	}
}

// The sweep removes expired messages that nobody fetches, a piece of each queue at a time, and nothing else.
func TestSweepRemovesExpired(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b', 'Empty']) q`)
	// Of a hundred messages one has expired, one has not yet, 98 never will; queue a is longer than one piece.
	const fill = `INSERT INTO sqlq.q_%s (id, type, body, expires_at)
		SELECT sqlq.uuid_v7(), 't', '1', CASE n %% 100 WHEN 1 THEN clock_timestamp() WHEN 2 THEN clock_timestamp() + interval '1 day' END FROM generate_series(1, %d) n`
	execSQL(t, pool, fmt.Sprintf(fill, "a", 30_000))
	execSQL(t, pool, fmt.Sprintf(fill, "b", 100))
	sweep := c.Sweeper(t)

	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `SELECT FROM sqlq.q_b WHERE expires_at < clock_timestamp() FOR UPDATE`); err != nil { // as a receiver does
		t.Fatal(err)
	}
	left := func(queue string) (expired, others int) {
		return count(t, pool, `SELECT count(*) FROM sqlq.q_`+queue+` WHERE expires_at < clock_timestamp()`),
			count(t, pool, `SELECT count(*) FROM sqlq.q_`+queue+` WHERE expires_at > clock_timestamp() OR expires_at IS NULL`)
	}
	want := func(when, queue string, expired, others int) {
		t.Helper()
		if e, o := left(queue); e != expired || o != others {
			t.Errorf("%s: queue %s has %d expired messages and %d others, want %d and %d", when, queue, e, o, expired, others)
		}
	}
	sweep()
	want("after the first piece", "a", 100, 29_700)
	want("while they are held", "b", 1, 99)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	sweep()
	want("after the second piece", "a", 0, 29_700)
	want("once they are free", "b", 0, 99)
	execSQL(t, pool, `UPDATE sqlq.q_a SET expires_at = clock_timestamp() WHERE seq <= 10`)
	execSQL(t, pool, `SELECT sqlq.drop_queue('b', true)`)
	sweep()
	want("from the start again", "a", 0, 29_691) // one of the ten was gone
}

// A message whose time runs out between two attempts is counted, in the statistics and for operators, and named in the log.
func TestExpiredBetweenAttemptsIsCounted(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	var said logged
	client := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}, Logger: said.logger()})
	stop := run(t, client, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
		if d.Message.N > 0 {
			return sqlq.RetryAfter(time.Hour, errors.New("later"))
		}
		return nil
	})}})
	eventually(t, "the queue is there", func() (bool, string) {
		return count(t, pool, `SELECT count(*) FROM sqlq.queue`) == 1, "not yet"
	})
	for n, options := range [][]sqlq.SendOption{{}, {sqlq.ExpiresIn(2 * time.Hour)}, {sqlq.ExpiresIn(time.Microsecond)}} {
		if err := client.Send(t.Context(), letter{N: n}, options...); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.delayed`)
	execSQL(t, pool, `UPDATE sqlq.delayed SET due_at = clock_timestamp(), expires_at = clock_timestamp()`)
	eventually(t, "settled", func() (bool, string) {
		s := statsOf(client)
		return s.Handled == 1 && s.Retried == 1 && s.Expired == 2, fmt.Sprintf("%+v", s)
	})
	stop()
	if n := count(t, pool, `SELECT expired FROM sqlq.instance WHERE endpoint = 'post' AND handled = 1`); n != 2 {
		t.Errorf("the instance counts %d expired messages, want 2", n)
	}
	if s := said.all(); strings.Count(s, "ran out before its next attempt") != 1 || !strings.Contains(s, "attempts=1") {
		t.Errorf("the log says\n%s", s)
	}
}
