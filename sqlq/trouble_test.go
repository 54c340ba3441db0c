package sqlq_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// A server that cannot settle for reasons of its own, a full disk for example, costs no message an attempt: it is handled
// again until the server can.
func TestServerInTrouble(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]bool{"held": false, "leased": true} {
		for kind, inTx := range map[string]bool{"Handle": false, "HandleTx": true} {
			if slow && inTx {
				continue // a HandleTx message is leased only after a crash
			}
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				pool := newPool(t)
				execSQL(t, pool, `SELECT sqlq.create_queue('work'), sqlq.create_queue('out')`)
				execSQL(t, pool, `CREATE TABLE public.trouble (tries int); INSERT INTO public.trouble VALUES (0); CREATE SEQUENCE public.tries`)
				// A sequence counts also what is rolled back.
				execSQL(t, pool, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
					BEGIN
						PERFORM nextval('public.tries');
						IF EXISTS (SELECT FROM public.trouble) THEN RAISE disk_full; END IF;
						RETURN new;
					END $$`)
				execSQL(t, pool, `CREATE TRIGGER full_disk BEFORE INSERT ON sqlq.q_out FOR EACH ROW EXECUTE FUNCTION full_disk()`)

				var later atomic.Bool
				handled := func(ctx context.Context, d *sqlq.Delivery[letter]) error {
					if d.Attempt != 1 {
						later.Store(true)
					}
					if slow {
						eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
					}
					return d.Send(letter{N: 2}, sqlq.To("out"))
				}
				handler := sqlq.Handle(handled)
				if inTx {
					handler = sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error { return handled(ctx, d) })
				}
				c := open(t, pool, sqlq.Config{HoldLimit: 20 * time.Millisecond, Routes: map[string]string{"post.Letter": "work"}})
				run(t, c, sqlq.Endpoint{Name: "work", Retry: noRetry, Handlers: []sqlq.Handler{handler}})
				if err := c.Send(t.Context(), letter{N: 1}); err != nil {
					t.Fatal(err)
				}
				eventually(t, "settles that the server could not do", func() (bool, string) {
					return count(t, pool, `SELECT last_value FROM public.tries`) >= 3, ""
				})
				execSQL(t, pool, `DELETE FROM public.trouble`)
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_out`)
				eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_work) + (SELECT count(*) FROM sqlq.leased)`)
				if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.error) + (SELECT count(*) FROM sqlq.delayed)`); n != 0 || later.Load() {
					t.Errorf("%d messages failed, a later attempt: %v; want neither", n, later.Load())
				}
			})
		}
	}
}

// A pool whose connections were opened while the server was read-only sends again when the server is not any more.
func TestSendAfterReadOnly(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	keeper := poolOn(t, url)
	execSQL(t, keeper, `SELECT sqlq.create_queue('work')`)
	readOnly := func(value string) {
		execSQL(t, keeper, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = `+value+`', current_database()); END $$`)
	}
	readOnly("on")
	pool := poolOn(t, url)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "work"}})
	if err := c.Send(t.Context(), letter{N: 1}); err == nil {
		t.Fatal("a read-only database took a message")
	}
	readOnly("off")
	eventually(t, "a send that succeeds", func() (bool, string) {
		err := c.Send(t.Context(), letter{N: 2})
		return err == nil, fmt.Sprint(err)
	})
	if n := count(t, keeper, `SELECT count(*) FROM sqlq.q_work`); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

// The same goes for a message that is settled by itself, because the server refused what its neighbour sent.
func TestServerInTroubleOverOneOfABatch(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('work')`)
	execSQL(t, pool, `CREATE SEQUENCE public.tries`)
	execSQL(t, pool, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF nextval('public.tries') = 1 THEN RAISE disk_full; END IF;
			RETURN old;
		END $$`)
	execSQL(t, pool, `CREATE TRIGGER full_disk BEFORE DELETE ON sqlq.q_work FOR EACH ROW WHEN (OLD.seq = 2) EXECUTE FUNCTION full_disk()`)
	var later atomic.Bool
	var both sync.WaitGroup // handled in one batch
	both.Add(2)
	var once [2]sync.Once
	c := open(t, pool, sqlq.Config{HoldLimit: 5 * time.Second, Routes: map[string]string{"post.Letter": "work"}})
	if err := c.SendMany(t.Context(), []sqlq.Message{letter{N: 0}, letter{N: 1}}); err != nil {
		t.Fatal(err)
	}
	run(t, c, sqlq.Endpoint{Name: "work", Retry: noRetry, Concurrency: 2, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			once[d.Message.N].Do(func() {
				both.Done()
				both.Wait()
			})
			if d.Message.N == 0 {
				return d.Send(letter{N: 2}, sqlq.To("nowhere"))
			}
			if d.Attempt != 1 {
				later.Store(true)
			}
			return nil
		})}})
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_work) + (SELECT count(*) FROM sqlq.leased)`)
	if failed, tries := count(t, pool, `SELECT count(*) FROM sqlq.error`), count(t, pool, `SELECT last_value FROM public.tries`); failed != 1 || tries != 2 || later.Load() {
		t.Errorf("%d failed, %d tries, a later attempt: %v; want 1, 2, false", failed, tries, later.Load())
	}
}
