package sqlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// What contradicts at most once is refused, with the reason.
func TestAtMostOnceRefuses(t *testing.T) {
	t.Parallel()
	c := open(t, newPool(t), sqlq.Config{})
	plain := chores(func(context.Context, *sqlq.Delivery[chore]) error { return nil })
	for _, tc := range []struct {
		name     string
		endpoint sqlq.Endpoint
		want     string
	}{
		{"a retry policy", sqlq.Endpoint{Name: "house", AtMostOnce: true, Retry: noRetry, Handlers: plain}, "has only one attempt; leave Retry empty"},
		{"HandleTx", sqlq.Endpoint{Name: "house", AtMostOnce: true, Handlers: []sqlq.Handler{
			sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[chore]) error { return nil })}}, "the removal is committed before"},
	} {
		if err := c.Run(t.Context(), tc.endpoint); !errors.Is(err, sqlq.ErrInvalidEndpoint) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// The message is gone before its handler runs; what fails, in whatever way, is in the error table as it was, after one
// attempt; what a handler sends is stored if it succeeds; and what was replayed is handled.
func TestAtMostOnce(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	ctx := t.Context()
	ways := []string{"succeed", "fail", "panic", "retry after", "goexit", "to nowhere"}
	for i, do := range ways {
		if err := c.Send(ctx, chore{N: i, Do: do}, sqlq.WithHeader("do", do), sqlq.ExpiresIn(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	execSQL(t, pool, `SELECT sqlq.send('house', 'house.Strange', '{}')`)
	execSQL(t, pool, `SELECT sqlq.send('house', 'house.Chore', '"garbled"', '{"do": "not decode"}')`)
	execSQL(t, pool, `SELECT sqlq.send('house', 'house.Chore', '{"Do": "expire"}', expires_in => interval '1 microsecond')`)
	var mended atomic.Bool
	var calls atomic.Int32
	run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 3, AtMostOnce: true, UnknownWait: -1, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		calls.Add(1)
		if n := count(t, pool, `SELECT count(*) FROM sqlq.q_house WHERE id = $1`, d.ID.String()); n != 0 || d.Attempt != 1 {
			t.Errorf("%s: attempt %d, in the queue %d times, want it removed before", d.Message.Do, d.Attempt, n)
		}
		if err := d.Send(entry{N: d.Message.N}); err != nil {
			return err
		}
		if mended.Load() {
			return nil
		}
		return misbehave(d)
	})})
	eventuallyCount(t, pool, 7, `SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND endpoint = 'house' AND queue = 'house' AND body IS NOT NULL`)
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_ledger`)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
	for query, want := range map[string]int{
		`message = 'no water' AND headers->>'do' IN ('fail', 'retry after') AND expires_at > now() AND sent_at < failed_at`: 2,
		`stack IS NOT NULL AND headers->>'do' = 'panic'`:                                                                    1,
		`message LIKE '%q_nowhere%'`:                                  1,
		`error_type LIKE '%' AND type = 'house.Strange'`:              1,
		`headers->>'do' = 'not decode' AND body = '"garbled"'::bytea`: 1,
	} {
		if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE `+query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	eventually(t, "statistics", func() (bool, string) {
		s := statsOf(c)
		return s.Handled == 1 && s.Expired == 1 && s.Failed == 7 && s.Retried == 0 && s.Running == 0, fmt.Sprintf("%+v", s)
	})
	mended.Store(true)
	before := calls.Load()
	execSQL(t, pool, `SELECT sqlq.replay(queue => 'house', type => 'house.Chore')`)
	eventuallyCount(t, pool, 6, `SELECT count(*) FROM sqlq.q_ledger`)
	if n := calls.Load() - before; n != 5 {
		t.Errorf("%d calls for 5 replayed messages and one that cannot be read", n)
	}
}

// misbehave does what a chore says.
func misbehave(d *sqlq.Delivery[chore]) error {
	switch d.Message.Do {
	case "fail":
		return errors.New("no water")
	case "retry after":
		return sqlq.RetryAfter(time.Millisecond, errors.New("no water"))
	case "panic":
		panic("no water")
	case "goexit":
		runtime.Goexit()
	case "to nowhere":
		return d.Send(chore{}, sqlq.To("nowhere"))
	}
	return nil
}

// No more is taken than slots are free, by however many connections, so a drain and a crash find nothing that was not
// begun. A handler that ends late after the drain's patience has failed.
func TestAtMostOnceTakesWhatSlotsAreFree(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{}'::json, ARRAY[20]))`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, DrainTimeout: 20 * time.Millisecond})
	var begun, ended atomic.Int32
	goOn := make(chan struct{})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, AtMostOnce: true, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		defer ended.Add(1)
		if begun.Add(1) <= 8 {
			<-goOn
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	})})
	waiting := func(want int) {
		t.Helper()
		eventually(t, "slots are taken", func() (bool, string) {
			left, running := count(t, pool, `SELECT count(*) FROM sqlq.q_house`), int(begun.Load()-ended.Load())
			return left == want && running == 4, fmt.Sprintf("%d wait, %d run", left, running)
		})
	}
	waiting(16)
	for range 8 {
		goOn <- struct{}{}
	}
	waiting(8)
	stop()
	if left, failed := count(t, pool, `SELECT count(*) FROM sqlq.q_house`), count(t, pool, `SELECT count(*) FROM sqlq.error WHERE message LIKE '%context canceled%'`); left != 8 || failed != 4 {
		t.Errorf("after the drain %d wait and %d failed, want 8 and 4", left, failed)
	}
}

// While messages fail one after the other, what was taken waits for its turn, and a drain puts it back as it was.
func TestAtMostOnceDrainPutsBackWhatWaits(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{"N": 1}'::json, ARRAY[60]), '{"room": "attic"}', expires_in => interval '1 hour')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	var calls atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 12, AtMostOnce: true, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		calls.Add(1)
		return errors.New("no water")
	})})
	eventually(t, "it slows down", func() (bool, string) {
		n := calls.Load()
		return n >= 13, fmt.Sprint(n, " calls")
	})
	stop()
	if left, failed := count(t, pool, `SELECT count(*) FROM sqlq.q_house WHERE attempt = 0 AND headers->>'room' = 'attic' AND expires_at > now() AND body = '{"N": 1}'::bytea`),
		count(t, pool, `SELECT count(*) FROM sqlq.error`); left+failed != 60 || failed != int(calls.Load()) {
		t.Errorf("%d wait and %d failed after %d calls, want 60 together", left, failed, calls.Load())
	}
}

// A handler that ignores that its context has ended keeps Run no longer than any other; what is lost with it is named, and it
// ends in peace.
func TestAtMostOnceDrainNamesWhatIsLost(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{}'::json, ARRAY[9]))`)
	var said logged
	c := open(t, pool, sqlq.Config{Routes: choreRoute, DrainTimeout: 20 * time.Millisecond, Logger: said.logger()})
	var begun, ended atomic.Int32
	goOn := make(chan struct{})
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, AtMostOnce: true, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		defer ended.Add(1)
		begun.Add(1)
		<-goOn
		return errors.New("no water")
	})})
	eventually(t, "slots are taken", func() (bool, string) { return begun.Load() == 4, fmt.Sprint(begun.Load()) })
	stop()
	if n := strings.Count(said.all(), "is lost with the end of its process"); n != 4 {
		t.Errorf("%d messages are named as lost, want 4: %s", n, said.all())
	}
	if left := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); left != 5 {
		t.Errorf("%d wait, want 5", left)
	}
	close(goOn)
	eventually(t, "handlers end", func() (bool, string) { return ended.Load() == 4, fmt.Sprint(ended.Load()) })
}

// A process that is killed takes with it what its handlers had begun, and nothing else; nobody handles that again.
func TestAtMostOnceKilledProcess(t *testing.T) {
	t.Parallel()
	site := newCrashSite(t)
	do := map[int]string{}
	for i := range 12 {
		do[i] = "wait"
	}
	site.sendPerils(t, 12, false, do)
	victim := spawn(t, childSpec{URL: site.url, Concurrency: 4, AtMostOnce: true})
	site.inMidst(t, "at most once", `SELECT (SELECT count(*) FROM began) = 4 AND (SELECT count(*) FROM sqlq.q_crash) = 8 AND NOT EXISTS (SELECT FROM sqlq.leased)`)
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	victim.wait(t)
	e := (&perils{pool: site.pool}).endpoint(4, false)
	e.AtMostOnce, e.Retry = true, sqlq.RetryPolicy{}
	stop := run(t, site.Client, e)
	site.empty(t, "at most once", time.Now(), patience)
	stop()
	left := count(t, site.pool, `SELECT count(*) FROM sqlq.q_crash`) // what the last fetch brought when the end began has gone back
	if n, of := count(t, site.pool, `SELECT count(*) FROM began`), count(t, site.pool, `SELECT count(DISTINCT n) FROM began`); n != 12-left || of != 12-left {
		t.Errorf("%d handlers began for %d messages, want each of %d once", n, of, 12-left)
	}
	if n := count(t, site.pool, `SELECT count(*) FROM handled`); n != 8-left {
		t.Errorf("%d messages were handled and %d are left, want the 8 that the dead process had not begun", n, left)
	}
}

// The connection is lost at the commit of a removal. When the answer is lost with it nobody knows whether it was
// committed, so the handler does not run; when the server had not got it, the message is handled after all.
func TestAtMostOnceLostAtTheCommit(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		delivered      bool // the server gets it
		handled, begun int
	}{
		{name: "with the answer", delivered: true, begun: 0},
		{name: "before the server has it", delivered: false, begun: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			watch := poolOn(t, url)
			execSQL(t, watch, `SELECT sqlq.create_queue('house'), sqlq.send('house', 'house.Chore', '{}')`)
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			cut := &cutAtRemoval{delivered: tc.delivered, dial: config.ConnConfig.DialFunc, gone: func() {
				eventuallyCount(t, watch, 0, `SELECT count(*) FROM sqlq.q_house`)
			}}
			config.ConnConfig.DialFunc = cut.connect
			config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // the text goes with what runs it
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			var begun atomic.Int32
			c := open(t, pool, sqlq.Config{Routes: choreRoute})
			stop := run(t, c, sqlq.Endpoint{Name: "house", AtMostOnce: true, Handlers: chores(func(context.Context, *sqlq.Delivery[chore]) error {
				begun.Add(1)
				return nil
			})})
			eventually(t, "the connection was cut", func() (bool, string) { return cut.done.Load(), "" })
			eventuallyCount(t, watch, 0, `SELECT count(*) FROM sqlq.q_house`)
			// One that is sent later is handled, so the endpoint has come back, and past the first.
			if err := c.Send(t.Context(), chore{N: 1}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the endpoint goes on", func() (bool, string) {
				n := int(begun.Load())
				return n == tc.begun+1, fmt.Sprint(n, " handled")
			})
			stop()
			if n := int(begun.Load()); n != tc.begun+1 || count(t, watch, `SELECT count(*) FROM sqlq.error`) != 0 {
				t.Errorf("%d handled, want %d and the later one", n, tc.begun)
			}
		})
	}
}

// cutAtRemoval breaks the first connection that removes a message, as it commits: before or after the server has it.
type cutAtRemoval struct {
	delivered bool
	gone      func() // returns when the server has committed
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
	done      atomic.Bool
}

func (c *cutAtRemoval) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, cut: c}, nil
}

type cutConn struct {
	net.Conn
	cut *cutAtRemoval
}

func (c *cutConn) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("DELETE FROM")) || !bytes.Contains(b, []byte("COMMIT")) || c.cut.done.Load() {
		return c.Conn.Write(b)
	}
	if c.cut.delivered {
		if _, err := c.Conn.Write(b); err != nil {
			return 0, err
		}
		c.cut.gone()
	}
	c.cut.done.Store(true)
	c.Conn.Close()
	return 0, &net.OpError{Op: "break", Net: "test", Err: io.ErrUnexpectedEOF}
}
