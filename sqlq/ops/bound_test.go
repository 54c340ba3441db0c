package ops_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// Batches that take longer than a statement may are done again in smaller ones, so that each change comes to its end.
func TestBatchesThatTakeTooLongShrink(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["statement_timeout"] = "600"
	hurried, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hurried.Close)
	o, ctx := ops.New(hurried, "sqlq"), t.Context()
	for _, sql := range []string{
		`SELECT sqlq.create_queue(q) FROM unnest(ARRAY['from', 'to']) q`,
		`CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN OLD; END $$`,
		`CREATE TRIGGER slow BEFORE DELETE ON sqlq.q_from FOR EACH ROW EXECUTE FUNCTION public.slow()`,
		`CREATE TRIGGER slow BEFORE DELETE ON sqlq.delayed FOR EACH ROW EXECUTE FUNCTION public.slow()`,
		`CREATE TRIGGER slow BEFORE DELETE ON sqlq.error FOR EACH ROW EXECUTE FUNCTION public.slow()`,
	} {
		if _, err := admin.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	const (
		ready   = `INSERT INTO sqlq.q_from (id, type, body) SELECT gen_random_uuid(), 'T', '1' FROM generate_series(1, 100)`
		delayed = `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT now() + interval '1 hour', gen_random_uuid(), 'delay', 'from', 'T', '1' FROM generate_series(1, 100)`
		failed  = `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
			SELECT gen_random_uuid(), 'from', 'from', 'h', 'T', '1', 1, now(), now(), 'e', 'm', 'f' FROM generate_series(1, 100)`
	)
	for _, c := range []struct {
		what, fill string
		do         func(context.Context) (int64, error)
	}{
		{"move", ready, func(ctx context.Context) (int64, error) {
			return o.Ready.Move(ctx, "from", "to", ops.Filter{}, ops.ChangeOptions{})
		}},
		{"purge", ready, func(ctx context.Context) (int64, error) {
			p, err := o.Ready.Purge(ctx, "from", ops.Filter{}, ops.PurgeOptions{})
			return p.Ready, err
		}},
		{"purge of delayed", delayed, func(ctx context.Context) (int64, error) {
			p, err := o.Ready.Purge(ctx, "from", ops.Filter{}, ops.PurgeOptions{Delayed: true})
			return p.Delayed, err
		}},
		{"cancel", delayed, func(ctx context.Context) (int64, error) {
			return o.Delayed.Cancel(ctx, ops.Filter{All: true}, ops.ChangeOptions{})
		}},
		{"delete", failed, func(ctx context.Context) (int64, error) {
			return o.Failed.Delete(ctx, ops.Filter{All: true}, ops.ChangeOptions{})
		}},
		{"replay", failed, func(ctx context.Context) (int64, error) {
			return o.Failed.Replay(ctx, ops.Filter{All: true}, ops.ReplayOptions{})
		}},
	} {
		if _, err := admin.Exec(ctx, c.fill); err != nil {
			t.Fatalf("%s: %v", c.fill, err)
		}
		if n, err := c.do(ctx); n != 100 || err != nil {
			t.Errorf("%s: %d, %v, want all 100", c.what, n, err)
		}
	}
}
