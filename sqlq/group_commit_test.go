package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// Sends that share a transaction each get their own result: one to a queue that does not exist is nobody else's fault.
func TestSendsAtTheSameTimeGetTheirOwnResults(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	const senders, each = 32, 30
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			for i := range each {
				n := s*each + i
				var err error
				switch n % 5 {
				case 0:
					err = c.Send(t.Context(), chore{N: n}, sqlq.To("nowhere"))
					if !errors.Is(err, sqlq.ErrNoQueue) || !strings.Contains(err.Error(), `"nowhere"`) {
						t.Errorf("send to a missing queue: %v", err)
					}
					continue
				case 1:
					err = c.Send(t.Context(), entry{N: n})
				case 2:
					err = c.Send(t.Context(), chore{N: n}, sqlq.Delay(1e12))
				default:
					err = c.Send(t.Context(), chore{N: n})
				}
				if err != nil {
					t.Errorf("message %d: %v", n, err)
				}
			}
		})
	}
	group.Wait()
	const a, b, d = `SELECT count(DISTINCT convert_from(body, 'UTF8')::json->>'N') FROM sqlq.q_house`, `SELECT count(*) FROM sqlq.q_ledger`, `SELECT count(*) FROM sqlq.delayed`
	if got := fmt.Sprint(count(t, pool, a), count(t, pool, b), count(t, pool, d)); got != fmt.Sprint(senders*each*2/5, senders*each/5, senders*each/5) {
		t.Errorf("stored %s", got)
	}
	if got, want := count(t, pool, `SELECT count(*) FROM sqlq.q_house`), senders*each*2/5; got != want {
		t.Errorf("%d messages in the queue, want %d: some were stored twice", got, want)
	}
}

// A sender whose context ends while it waits for a place has sent nothing.
func TestSendWithAnEndedContext(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Send(ctx, chore{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if got := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); got != 0 {
		t.Errorf("%d messages were sent", got)
	}
}

// stall makes every message to queue house whose body has stall in it wait for an advisory lock, and every one with spoilt in it an error.
// The returned function lets go those that wait.
func stall(t *testing.T, pool *pgxpool.Pool) (letGo func()) {
	t.Helper()
	execSQL(t, pool, `CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF convert_from(new.body, 'UTF8') LIKE '%stall%' THEN PERFORM pg_advisory_xact_lock_shared(99, 1); END IF;
			IF convert_from(new.body, 'UTF8') LIKE '%spoilt%' THEN RAISE EXCEPTION 'spoilt'; END IF;
			RETURN new;
		END $$`)
	execSQL(t, pool, `CREATE TRIGGER stall BEFORE INSERT ON sqlq.q_house FOR EACH ROW EXECUTE FUNCTION stall()`)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock(99, 1)`); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	letGo = func() {
		once.Do(func() {
			if _, err := conn.Exec(context.Background(), `SELECT pg_advisory_unlock(99, 1)`); err != nil {
				t.Error(err)
			}
			conn.Release()
		})
	}
	t.Cleanup(letGo)
	return letGo
}

// stalled waits until so many commits hang.
func stalled(t *testing.T, pool *pgxpool.Pool, want int) {
	t.Helper()
	eventually(t, "commits that hang", func() (bool, string) {
		n := count(t, pool, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 99 AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		return n == want, fmt.Sprint(n)
	})
}

// A commit that hangs holds up the others only for a moment. When two hang, the rest gather: who leaves has sent nothing,
// and in the commit that takes the others a message that the server refuses is nobody else's fault.
func TestCommitsThatHang(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	letGo := stall(t, pool)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "house"}})
	var hanging sync.WaitGroup
	send := func(ctx context.Context, n int, where string) error {
		return c.Send(ctx, letter{N: n, Where: where})
	}
	hang := func(n int) {
		hanging.Go(func() {
			if err := send(t.Context(), n, "stall"); err != nil {
				t.Errorf("message %d: %v", n, err)
			}
		})
		stalled(t, pool, n)
	}

	hang(1)
	for n := 10; n < 20; n++ {
		if err := send(t.Context(), n, "here"); err != nil {
			t.Errorf("message %d: %v", n, err)
		}
	}
	if got := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); got != 10 {
		t.Errorf("%d messages beside one that hangs, want 10", got)
	}

	hang(2)
	ctx, leave := context.WithCancel(t.Context())
	var leaving, gathered sync.WaitGroup
	for n := 30; n < 40; n++ {
		leaving.Go(func() {
			if err := send(ctx, n, "gone"); !errors.Is(err, context.Canceled) {
				t.Errorf("message %d: %v, want the context's error", n, err)
			}
		})
		gathered.Go(func() {
			if err := send(t.Context(), n, "here"); err != nil {
				t.Errorf("message %d: %v", n, err)
			}
		})
		gathered.Go(func() {
			if err := send(t.Context(), n, "spoilt"); pgError(err).Message != "spoilt" {
				t.Errorf("message %d: %v, want the server's error", n, err)
			}
		})
	}
	eventually(t, "senders that wait", func() (bool, string) {
		n := c.Gathered("house")
		return n == 30, fmt.Sprint(n)
	})
	leave()
	leaving.Wait()
	if n := c.Gathered("house"); n != 20 {
		t.Errorf("%d senders wait when ten have left, want 20", n)
	}
	letGo()
	hanging.Wait()
	gathered.Wait()
	const left = `SELECT count(*) FROM sqlq.q_house WHERE convert_from(body, 'UTF8') ~ 'gone|spoilt'`
	if total, wrong := count(t, pool, `SELECT count(*) FROM sqlq.q_house`), count(t, pool, left); total != 22 || wrong != 0 {
		t.Errorf("%d messages are stored, %d of them were not sent; want 22 and 0", total, wrong)
	}
}

// Sends of many goroutines share transactions: each but the first commit takes along whoever came meanwhile.
func TestSendsShareCommits(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	letGo := stall(t, pool)
	var all sync.WaitGroup
	for n := range 2 {
		all.Go(func() {
			if err := c.Send(t.Context(), letter{Where: "stall"}, sqlq.To("house")); err != nil {
				t.Error(err)
			}
		})
		stalled(t, pool, n+1)
	}
	const senders = 200
	for n := range senders {
		all.Go(func() {
			if err := c.Send(t.Context(), chore{N: n}); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "senders that wait", func() (bool, string) {
		n := c.Gathered("house")
		return n == senders, fmt.Sprint(n)
	})
	letGo()
	all.Wait()
	// xmin is the transaction that stored a row.
	if n := count(t, pool, `SELECT count(DISTINCT xmin::text) FROM sqlq.q_house`); n != 3 {
		t.Errorf("%d transactions, want 3: two that hung, and one for all who waited", n)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); n != senders+2 {
		t.Errorf("%d messages, want %d", n, senders+2)
	}
}
