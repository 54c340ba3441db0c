package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// refuse has the server refuse every insert into a table of the schema, and count them, refused ones included.
func refuse(t *testing.T, pool *pgxpool.Pool, table string) (tries string, stop func()) {
	t.Helper()
	execSQL(t, pool, fmt.Sprintf(`CREATE SEQUENCE public.tries_%s`, table))
	execSQL(t, pool, fmt.Sprintf(`CREATE FUNCTION public.refuse_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			PERFORM nextval('public.tries_%[1]s');
			RAISE EXCEPTION 'the audit trail is broken';
		END $$`, table))
	execSQL(t, pool, fmt.Sprintf(`CREATE TRIGGER refuse BEFORE INSERT ON sqlq.%[1]s FOR EACH ROW EXECUTE FUNCTION public.refuse_%[1]s()`, table))
	return fmt.Sprintf(`SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.tries_%s`, table),
		func() { execSQL(t, pool, fmt.Sprintf(`DROP TRIGGER refuse ON sqlq.%s`, table)) }
}

// A failure that the server refuses to store neither loses its message nor has the handler run without a pause, however the
// message was received, and where the server refuses to have it wait among the delayed too.
func TestRefusedFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                      string
		inTx, once, crashed, slow bool
		tries                     int // to store the failure, in three rounds
	}{
		{"held", false, false, false, false, 7},
		{"leased", false, false, false, true, 5},
		{"HandleTx", true, false, false, false, 7},
		{"at most once", false, true, false, false, 3},
		{"under suspicion", false, false, true, false, 5},
		{"HandleTx, under suspicion", true, false, true, false, 5},
	} {
		for _, delayedToo := range []bool{false, true} {
			name := c.name
			if delayedToo {
				name += ", delayed too"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				pool := newPool(t)
				execSQL(t, pool, `SELECT sqlq.create_queue('work')`)
				tries, stop := refuse(t, pool, "error")
				stopDelayed := func() {}
				if delayedToo {
					_, stopDelayed = refuse(t, pool, "delayed")
				}
				var runs, good atomic.Int32
				handled := func(ctx context.Context, d *sqlq.Delivery[letter]) error {
					if d.Message.N == 0 {
						good.Add(1)
						return nil
					}
					runs.Add(1)
					if c.slow {
						eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
					}
					return errors.New("broken")
				}
				handler := sqlq.Handle(handled)
				if c.inTx {
					handler = sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error { return handled(ctx, d) })
				}
				var log logged
				client := open(t, pool, sqlq.Config{HoldLimit: 20 * time.Millisecond, Routes: map[string]string{"post.Letter": "work"}, Logger: log.logger()})
				e := sqlq.Endpoint{Name: "work", Retry: noRetry, AtMostOnce: c.once, Handlers: []sqlq.Handler{handler}}
				if c.once {
					e.Retry = sqlq.RetryPolicy{}
				}
				headers := `NULL`
				if c.crashed {
					headers = `'{"sqlq-crashes":"0"}'`
					e.Retry = sqlq.RetryPolicy{Immediate: 2, Delays: []time.Duration{}}
				}
				began := time.Now()
				execSQL(t, pool, `INSERT INTO sqlq.q_work (id, sent_at, type, headers, body) VALUES (gen_random_uuid(), now() - interval '1 s', 'post.Letter', `+headers+`, '{"N":1}')`)
				run(t, client, e)
				eventually(t, "three rounds", func() (bool, string) {
					n := count(t, pool, tries)
					return n >= c.tries, fmt.Sprint(n, " tries, ", runs.Load(), " runs")
				})
				if took := time.Since(began); took < time.Second || runs.Load() > 9 { // a run more than rounds: another receiver may find the row free for a moment
					t.Errorf("%d runs within %v: no pauses", runs.Load(), took)
				}
				if n := strings.Count(log.all(), "refuses to settle"); n != 1 {
					t.Errorf("%d lines in the log, want 1:\n%s", n, log.all())
				}
				if err := client.Send(t.Context(), letter{N: 0}); err != nil {
					t.Fatal(err)
				}
				eventually(t, "another message", func() (bool, string) { return good.Load() == 1, "" })
				stop()
				stopDelayed()
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error`)
				eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_work) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`)
				if f := failedRows(t, pool)[0]; !strings.Contains(f.Message, "broken") || !c.crashed && f.Attempts != 1 {
					t.Errorf("failed with %q after %d attempts", f.Message, f.Attempts)
				}
			})
		}
	}
}

// Bookkeeping that no library wrote, by an import or a producer, does not keep a message from failing.
func TestForgedBookkeeping(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('work')`)
	headers := []string{
		`{"sqlq-replays":"99999999999"}`, `{"sqlq-replays":"-5"}`, `{"sqlq-replays":"9999999999999999999999"}`, `{"sqlq-replays":"one"}`,
		`{"sqlq-first-failed-at":"0000-01-01T00:00:00Z"}`, `{"sqlq-first-failed-at":"0001-01-01T00:00:00+23:59"}`,
		`{"sqlq-first-failed-at":"9999-12-31T23:59:59-23:59"}`, `{"sqlq-first-failed-at":"9999-12-31T23:59:59Z"}`, `{"sqlq-first-failed-at":"yesterday"}`,
	}
	for _, h := range headers {
		execSQL(t, pool, `INSERT INTO sqlq.q_work (id, sent_at, type, headers, body) VALUES (gen_random_uuid(), now() - interval '1 s', 'post.Letter', $1::text::json, '{}')`, h)
	}
	execSQL(t, pool, `INSERT INTO sqlq.q_work (id, sent_at, type, body) SELECT gen_random_uuid(), now() - interval '1 s', string_agg(md5(n::text), ''), '{}' FROM generate_series(1, 1000) n`)
	var runs atomic.Int32
	run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "work", Retry: noRetry, UnknownWait: -1, Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error {
			runs.Add(1)
			return errors.New("broken")
		})}})
	eventuallyCount(t, pool, len(headers)+1, `SELECT count(*) FROM sqlq.error WHERE replays >= 0 AND first_failed_at BETWEEN '0001-01-01' AND failed_at`)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_work) + (SELECT count(*) FROM sqlq.delayed)`)
	if n := runs.Load(); n != int32(len(headers)) {
		t.Errorf("%d runs of %d messages", n, len(headers))
	}
	execSQL(t, pool, `SELECT sqlq.replay('work')`)
}
