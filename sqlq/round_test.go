package sqlq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

const (
	dueNow = `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT now(), gen_random_uuid(), 'delay', $1, 'T', '1' FROM generate_series(1, $2)`
	ended  = `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) SELECT -1, $1, i, gen_random_uuid(), now(), 0, 'T', '1' FROM generate_series(1, $2) i`
)

// slowQueue makes a queue that takes its time for each message it gets, as it does for large ones.
func slowQueue(t *testing.T, pool *pgxpool.Pool, queue string, each time.Duration) {
	t.Helper()
	execSQL(t, pool, `SELECT sqlq.create_queue($1)`, queue)
	execSimple(t, pool, fmt.Sprintf(`
		CREATE FUNCTION public.slow_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(%[2]f); RETURN NEW; END $$;
		CREATE TRIGGER slow BEFORE INSERT ON sqlq.q_%[1]s FOR EACH ROW EXECUTE FUNCTION public.slow_%[1]s()`, queue, each.Seconds()))
}

// keepHouse runs an endpoint that receives nothing, so that somebody keeps house.
func keepHouse(t *testing.T, pool *pgxpool.Pool, config sqlq.Config) (stop func()) {
	t.Helper()
	stop = run(t, open(t, pool, config), sqlq.Endpoint{Name: "keeper", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[flaky]) error { return nil })}})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance WHERE endpoint = 'keeper' AND drained_at IS NULL`)
	return stop
}

// More due messages than can be moved between two heartbeats are moved by and by, and do not hold up those of other queues.
func TestSlowMessagesAreMovedByAndBy(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	slowQueue(t, pool, "slow", 20*time.Millisecond)
	execSQL(t, pool, `SELECT sqlq.create_queue('quick')`)
	execSQL(t, pool, dueNow, "slow", 300) // 6 s in all
	execSQL(t, pool, dueNow, "quick", 1)
	keepHouse(t, pool, sqlq.Config{LeaseTime: 2 * time.Second})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_quick`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_slow`); n == 300 {
		t.Error("the quick one had to wait for all of the slow ones")
	}
	eventuallyCount(t, pool, 300, `SELECT count(*) FROM sqlq.q_slow`)
}

// The same of what dead instances had leased.
func TestSlowMessagesAreGivenBackByAndBy(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	slowQueue(t, pool, "slow", 20*time.Millisecond)
	execSQL(t, pool, `SELECT sqlq.create_queue('the_quick')`)
	keepHouse(t, pool, sqlq.Config{LeaseTime: 2 * time.Second})
	execSQL(t, pool, dueNow, "the_quick", 1)
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.q_the_quick`) // it leads
	execSQL(t, pool, ended, "slow", 150)                                 // 3 s in all: of several heartbeats
	execSQL(t, pool, ended, "the_quick", 1)
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.q_the_quick`)
	eventuallyCount(t, pool, 150, `SELECT count(*) FROM sqlq.q_slow`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.leased`); n != 0 {
		t.Errorf("%d are leased still", n)
	}
}

// A queue's table that somebody has locked for long holds up its own messages alone, until it is free.
func TestLockedQueueHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['locked', 'other']) q`)
	for _, q := range []string{"locked", "other"} {
		execSQL(t, pool, dueNow, q, 3)
		execSQL(t, pool, ended, q, 3)
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE sqlq.q_locked IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	var said logged
	keepHouse(t, pool, sqlq.Config{Logger: said.logger()})
	eventuallyCount(t, pool, 6, `SELECT count(*) FROM sqlq.q_other`)
	// What comes later, too.
	execSQL(t, pool, dueNow, "other", 3)
	eventuallyCount(t, pool, 9, `SELECT count(*) FROM sqlq.q_other`)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 6, `SELECT count(*) FROM sqlq.q_locked`)
}

// A round has at least one message, and no more bytes than it may beyond the first, bodies and headers together.
func TestRoundsAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'bank']) q`)
	// Random, or it would be compressed: 32 bytes a piece.
	const large = `(SELECT string_agg(sha256(i::text::bytea || n::text::bytea), '') FROM generate_series(1, 3200) i)`
	execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT now(), gen_random_uuid(), 'delay', 'post', 'T', `+large+` FROM generate_series(1, 4) n`)
	execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, headers, body) SELECT now(), gen_random_uuid(), 'delay', 'bank', 'T',
		json_build_object('h', encode(`+large+`, 'hex')), '1' FROM generate_series(1, 2) n`)
	moved := func(want string, args ...any) {
		t.Helper()
		if got := value(t, pool, `SELECT coalesce(string_agg(queue || ' ' || moved || ' ' || more, ', ' ORDER BY queue), '') FROM sqlq.move_due('-infinity', 100, $1, $2, $3)`, args...); got != want {
			t.Errorf("moved %q, want %q", got, want)
		}
	}
	moved("post 2 true", 150_000, []string{}, false)
	moved("bank 1 true", 1, []string{"post"}, false)
	moved("post 1 true", 1, []string{"post"}, true)
	moved("bank 1 false, post 1 false", 16<<20, []string{}, false)
	moved("", 16<<20, []string{}, false)

	execSQL(t, pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) SELECT -1, 'post', n, gen_random_uuid(), now(), 0, 'T', `+large+` FROM generate_series(1, 4) n`)
	execSQL(t, pool, ended, "bank", 1)
	recovered := func(want string, args ...any) {
		t.Helper()
		if got := value(t, pool, `SELECT coalesce(string_agg(queue || ' ' || recovered || ' ' || more, ', ' ORDER BY queue), '') FROM sqlq.recover_leased($1, $2, $3)`, args...); got != want {
			t.Errorf("recovered %q, want %q", got, want)
		}
	}
	recovered("bank 0 true, post 0 true", nil, 0, 0)
	recovered("post 2 true", "post", 100, 150_000)
	recovered("bank 1 false, post 1 true", nil, 100, 1)
	recovered("post 1 false", nil, 100, 1)
	recovered("", nil, 100, 1)

	execSQL(t, pool, `UPDATE sqlq.q_post SET expires_at = '2020-01-01' WHERE seq % 2 = 1`)
	swept := func(want string, args ...any) {
		t.Helper()
		if got := value(t, pool, `SELECT concat_ws(' ', removed, up_to, more) FROM sqlq.sweep_expired('post', $1, 1000, $2)`, args...); got != want {
			t.Errorf("swept %q, want %q", got, want)
		}
	}
	swept("1 1 t", 0, 1)
	swept("2 5 t", 1, 150_000)
	swept("1 0 f", 5, 16<<20)
	swept("0 0 f", 0, 1)
}

// No row of the delayed keeps the others from being moved, whatever stands in it.
func TestOddRowsStopNoHousekeeping(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'picky', 'angry']) q`)
	execSQL(t, pool, `ALTER TABLE sqlq.q_picky ADD CHECK (type <> 'bad')`)
	execSimple(t, pool, `CREATE FUNCTION public.angry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.type = 'bad' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$;
		CREATE TRIGGER angry BEFORE INSERT ON sqlq.q_angry FOR EACH ROW EXECUTE FUNCTION public.angry()`)
	// As they may stand there from before, and with a clock that was set.
	execSQL(t, pool, `ALTER TABLE sqlq.delayed DROP CONSTRAINT due_at_finite, DROP CONSTRAINT sender_limits`)
	odd := `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body, headers, expires_at) VALUES ($1, gen_random_uuid(), 'delay', $2, $3, '1', $4, $5)`
	for _, row := range [][]any{
		{"infinity", "post", "later", nil, nil},
		{"294276-12-31", "post", "later", nil, nil},
		{"-infinity", "post", "T", nil, nil},
		{"4000-01-01 BC", "post", "T", nil, nil},
		{"2020-01-01", "post", "T", nil, "infinity"},
		{"2020-01-01", "gone", "T", nil, "infinity"},
		{"2020-01-01", "gone", "T", `{"sqlq-first-failed-at":"0000-01-01T00:00:00Z","sqlq-replays":"999999999"}`, "-infinity"},
		{"2020-01-01", "picky", "bad", `[1]`, nil},
		{"2020-01-01", "angry", "bad", nil, nil},
	} {
		execSQL(t, pool, odd, row...)
	}
	for _, q := range []string{"post", "picky", "angry"} {
		execSQL(t, pool, dueNow, q, 20)
	}
	execSQL(t, pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (-1, 'picky', 1, gen_random_uuid(), now(), 0, 'bad', '1')`)
	execSQL(t, pool, ended, "picky", 5)
	execSQL(t, pool, ended, "post", 5)
	keepHouse(t, pool, sqlq.Config{})
	for queue, n := range map[string]int{"post": 28, "picky": 25, "angry": 20} {
		eventuallyCount(t, pool, n, `SELECT count(*) FROM sqlq.q_`+queue)
	}
	eventuallyCount(t, pool, 3, `SELECT count(*) FROM sqlq.error WHERE fingerprint = 'queue-refuses' AND type = 'bad' AND message LIKE 'the queue does not take it: %'`)
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.error WHERE fingerprint = 'no-queue'`)
	eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.delayed`)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.leased`)
	// And what is due later is looked for.
	execSQL(t, pool, dueNow, "post", 1)
	eventuallyCount(t, pool, 29, `SELECT count(*) FROM sqlq.q_post`)
}

// What the functions do does not depend on what a backslash means to the caller.
func TestHousekeepingWhateverABackslashMeans(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["standard_conforming_strings"] = "off"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue('post')`)
	execSQL(t, admin, `INSERT INTO sqlq.delayed (due_at, id, sent_at, why, queue, type, body, headers) VALUES (now(), gen_random_uuid(), now() - interval '1 s', 'delay', 'gone', 'T', '1', '{"sqlq-replays":"2", "a":"\\s"}')`)
	execSQL(t, admin, dueNow, "post", 1)
	execSQL(t, admin, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body, headers) VALUES (-1, 'post', 1, gen_random_uuid(), now(), 0, 'T', '1', '{"a":"1" }')`)
	failSQL(t, admin, "post", 1)
	keepHouse(t, pool, sqlq.Config{})
	eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.error WHERE queue = 'gone' AND replays = 2 AND headers::text LIKE '%"a"%' AND headers::text NOT LIKE '%sqlq%'`)
	eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.q_post WHERE headers::text = '{"a":"1","sqlq-crashes":"0"}'`)
	eventuallyCount(t, admin, 2, `SELECT count(*) FROM sqlq.q_post`)
	if n := count(t, pool, `SELECT sqlq.replay('post')`); n != 24 {
		t.Errorf("replayed %d, want 24", n)
	}
}

// A sweep that takes longer than one turn of the housekeeping comes to the end of its queues all the same, past one that is
// locked.
func TestSweepComesToItsEnd(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{LeaseTime: 8 * time.Second})
	for i := range 12 {
		q := fmt.Sprintf("q%02d", i)
		execSQL(t, pool, `SELECT sqlq.create_queue($1)`, q)
		execSimple(t, pool, fmt.Sprintf(`INSERT INTO sqlq.q_%[1]s (id, type, body, expires_at) VALUES (gen_random_uuid(), 'T', '1', now());
			CREATE FUNCTION public.slow_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN OLD; END $$;
			CREATE TRIGGER slow BEFORE DELETE ON sqlq.q_%[1]s FOR EACH ROW EXECUTE FUNCTION public.slow_%[1]s()`, q))
	}
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE sqlq.q_q00 IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	if err := c.SweepInTurns(t, time.Second); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := 0
	for i := range 12 {
		left += count(t, pool, fmt.Sprintf(`SELECT count(*) FROM sqlq.q_q%02d`, i))
	}
	if left != 1 {
		t.Errorf("%d expired messages are left, want that of the locked queue alone", left)
	}
}
