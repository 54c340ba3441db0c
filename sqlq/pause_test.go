package sqlq_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/sqlq"
)

// ticket is a command that a HandleTx handler of the box office takes, voucher one of a Handle handler.
type (
	ticket  struct{ N int }
	voucher struct{ N int }
)

func (ticket) MessageType() string  { return "box.Ticket" }
func (voucher) MessageType() string { return "box.Voucher" }

var boxRoutes = map[string]string{"box.Ticket": "box", "box.Voucher": "box"}

// box is the box office: it counts what it has handled.
func box(handled *atomic.Int64) sqlq.Endpoint {
	return sqlq.Endpoint{Name: "box", Concurrency: 4, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[ticket]) error { handled.Add(1); return nil }),
		sqlq.Handle(func(context.Context, *sqlq.Delivery[voucher]) error { handled.Add(1); return nil }),
	}}
}

// mark pauses or resumes a queue as an operator does.
func mark(t testing.TB, pool *pgxpool.Pool, queue string, paused, notify bool) {
	t.Helper()
	execSQL(t, pool, `UPDATE sqlq.queue SET paused_at = CASE WHEN $2 THEN clock_timestamp() END, paused_by = CASE WHEN $2 THEN 'the test' END WHERE name = $1`, queue, paused)
	if notify {
		execSQL(t, pool, `SELECT pg_notify('sqlq_' || 'sqlq.queue'::regclass::oid, '')`)
	}
}

// rests waits until an endpoint of the client is paused and has nothing in hand.
func rests(t testing.TB, c *sqlq.Client) {
	t.Helper()
	eventually(t, "the endpoint is paused", func() (bool, string) {
		s := c.Stats()
		if len(s.Endpoints) == 0 {
			return false, "it does not run"
		}
		e := s.Endpoints[0]
		return e.Waits == sqlq.Paused && e.Running == 0 && e.Waiting == 0 && !c.Fetching(e.Name), fmt.Sprintf("%+v", e)
	})
}

// beats waits until the living instances of an endpoint have said twice that they live.
func beats(t testing.TB, pool *pgxpool.Pool, endpoint string) {
	t.Helper()
	for range 2 {
		var since time.Time
		if err := pool.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&since); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.instance WHERE endpoint = $1 AND drained_at IS NULL AND crashed_at IS NULL AND heartbeat_at <= $2`, endpoint, since)
	}
}

// watchers counts the locks of those who sleep on a queue, or keep the watch over one.
const watchersOf = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid IN (1936813169, 1936813170)
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`

// Pausing ends the fetching of all processes, in the middle of work or asleep, and that of one that starts meanwhile;
// sending, the delayed messages and the leases of the dead go on. Resuming is heard at once.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('box')`)
	var said logged
	config := sqlq.Config{Routes: boxRoutes, PollInterval: time.Hour, LeaseTime: time.Second, HoldLimit: 10 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&said, nil))}
	var handled atomic.Int64
	first, second := open(t, pool, config), open(t, pool, config)
	run(t, first, box(&handled))
	run(t, second, box(&handled))
	sender := open(t, pool, sqlq.Config{Routes: boxRoutes})
	sent := 0
	send := func(n int, options ...sqlq.SendOption) {
		t.Helper()
		var ms []sqlq.Message
		for range n {
			if sent++; sent%2 == 0 {
				ms = append(ms, ticket{sent})
			} else {
				ms = append(ms, voucher{sent})
			}
		}
		if err := sender.SendMany(t.Context(), ms, options...); err != nil {
			t.Fatal(err)
		}
	}
	all := func() {
		t.Helper()
		eventually(t, "all are handled", func() (bool, string) {
			return handled.Load() == int64(sent), fmt.Sprintf("%d of %d", handled.Load(), sent)
		})
	}

	for round := range 3 { // under load, and the third time asleep
		if round < 2 {
			send(5000)
			eventually(t, "some are handled", func() (bool, string) { return handled.Load() > 5000*int64(round), "" })
		} else {
			eventually(t, "somebody sleeps", func() (bool, string) { return count(t, pool, watchersOf) > 0, "" })
		}
		mark(t, pool, "box", true, true)
		rests(t, first)
		rests(t, second)
		before, fetches := handled.Load(), statsOf(first).Fetches+statsOf(second).Fetches
		send(10)
		send(10, sqlq.Delay(time.Millisecond))
		execSQL(t, pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (-1, 'box', 1, sqlq.uuid_v7(), now(), 0, 'box.Voucher', '{}')`)
		sent++
		eventuallyCount(t, pool, sent-int(before), `SELECT count(*) FROM sqlq.q_box`)
		eventuallyCount(t, pool, 0, watchersOf)
		third := open(t, pool, config)
		stop := run(t, third, box(&handled))
		rests(t, third)
		beats(t, pool, "box")
		if n := statsOf(third).Fetches; n != 0 {
			t.Errorf("round %d: a process that started while the queue was paused has fetched %d times", round, n)
		}
		stop()
		if got := handled.Load(); got != before {
			t.Errorf("round %d: %d messages were handled while the queue was paused", round, got-before)
		}
		if got := statsOf(first).Fetches + statsOf(second).Fetches; got != fetches {
			t.Errorf("round %d: %d fetches while the queue was paused", round, got-fetches)
		}
		mark(t, pool, "box", false, true)
		all()
	}
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_box`)
	text := said.all()
	if p, r := strings.Count(text, "the queue is paused"), strings.Count(text, "the queue is resumed"); p != 9 || r != 6 || !strings.Contains(text, `by="the test"`) {
		t.Errorf("the log says %d times that the queue is paused, want 9, and %d times that it is resumed, want 6:\n%s", p, r, text)
	}
}

// A mark that nobody was notified of is seen with the next heartbeat, and so is its end.
func TestPauseUnheard(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('box')`)
	mark(t, pool, "box", true, false)
	var handled atomic.Int64
	c := open(t, pool, sqlq.Config{Routes: boxRoutes, PollInterval: time.Hour, LeaseTime: time.Second})
	run(t, c, box(&handled))
	if err := c.Send(t.Context(), voucher{}); err != nil {
		t.Fatal(err)
	}
	rests(t, c)
	beats(t, pool, "box")
	mark(t, pool, "box", false, false)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_box`)
	mark(t, pool, "box", true, false)
	rests(t, c)
}

// Behind a transaction pooler, where nobody listens, a paused queue is not polled.
func TestPauseBehindBouncer(t *testing.T) {
	t.Parallel()
	bouncer.Need(t)
	through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode=exec")
	execSQL(t, past, `SELECT sqlq.create_queue('box')`)
	var handled atomic.Int64
	c := open(t, through, sqlq.Config{Routes: boxRoutes, PollInterval: 10 * time.Millisecond, LeaseTime: time.Second})
	run(t, c, box(&handled))
	for range 2 {
		mark(t, past, "box", true, true)
		rests(t, c)
		before := statsOf(c).Fetches
		if err := c.SendMany(t.Context(), []sqlq.Message{ticket{}, voucher{}}); err != nil {
			t.Fatal(err)
		}
		beats(t, past, "box")
		if n := statsOf(c).Fetches; n != before {
			t.Errorf("%d fetches while the queue was paused", n-before)
		}
		mark(t, past, "box", false, true)
		eventuallyCount(t, past, 0, `SELECT count(*) FROM sqlq.q_box`)
	}
}

// Messages in hand are finished while their queue is paused, and a process whose queue is paused drains.
func TestPauseFinishesWhatIsInHand(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, PollInterval: time.Hour, HoldLimit: 10 * time.Millisecond})
	release := make(chan struct{})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 2, Handlers: chores(func(context.Context, *sqlq.Delivery[chore]) error {
		<-release
		return nil
	})})
	if err := c.SendMany(t.Context(), []sqlq.Message{chore{}, chore{}, chore{}}); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.leased`)
	mark(t, pool, "house", true, true)
	eventually(t, "the endpoint is paused", func() (bool, string) { return statsOf(c).Waits == sqlq.Paused, "" })
	close(release)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.leased`)
	rests(t, c)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); n != 1 {
		t.Errorf("%d messages wait, want 1", n)
	}
	stop()
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL`)
}
