package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// newRole makes a role that may log in and nothing else, and a pool of its own. It is gone when the test ends.
func newRole(t *testing.T, url, name string) (role string, pool *pgxpool.Pool) {
	t.Helper()
	admin := poolOn(t, url)
	role = fmt.Sprintf("%s%x", name, sqlq.NewID())
	quoted := pgx.Identifier{role}.Sanitize()
	execSQL(t, admin, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret'`, quoted))
	t.Cleanup(func() {
		execSQL(t, admin, `DROP OWNED BY `+quoted)
		execSQL(t, admin, `DROP ROLE `+quoted)
	})
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.User, config.ConnConfig.Password = role, "secret"
	if pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return role, pool
}

// granted is newRole and grant_role.
func granted(t *testing.T, url, kind string, queues ...string) *pgxpool.Pool {
	t.Helper()
	role, pool := newRole(t, url, kind+"_")
	execSQL(t, poolOn(t, url), `SELECT sqlq.grant_role($1, $2, $3)`, role, kind, queues)
	return pool
}

// refused checks that the database lets a role do none of these.
func refused(t *testing.T, pool *pgxpool.Pool, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := pool.Exec(t.Context(), sql); sqlStateOf(err) != "42501" {
			t.Errorf("%s: %v, want that the privilege lacks (42501)", sql, err)
		}
	}
}

func sqlStateOf(err error) string {
	if err == nil {
		return ""
	}
	return pgError(err).Code
}

// mine and theirs are two queues, both subscribed to the event.
func twoQueues(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['mine', 'theirs']) q`)
	execSQL(t, admin, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'mine'), ('post.Posted', 'theirs')`)
	return admin
}

// Without a grant a role gets as far as an error that says which one it needs.
func TestNoRole(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	role, pool := newRole(t, url, `it's "me" `)
	_, err := sqlq.Open(t.Context(), pool, sqlq.Config{})
	advice := fmt.Sprintf(`SELECT "sqlq"."grant_role"('%s', 'producer')`, strings.ReplaceAll(role, "'", "''"))
	if !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), advice) {
		t.Fatalf("Open: %v, want ErrPermissionDenied and %s", err, advice)
	}
	execSQL(t, poolOn(t, url), advice)
	if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{}); err != nil {
		t.Errorf("Open after the advice was followed: %v", err)
	}
}

// A producer sends to its queues, in every way there is, publishes to whoever subscribed, and reads nothing.
func TestProducer(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	pool := granted(t, url, "producer", "mine")
	c := open(t, pool, sqlq.Config{})
	to := sqlq.To("mine")
	many := slices.Repeat([]sqlq.Message{letter{}}, sqlq.CopyFrom+1)
	for what, err := range map[string]error{
		"Send":                 c.Send(t.Context(), letter{}, to),
		"Send, to live":        c.Send(t.Context(), letter{}, to, sqlq.ExpiresIn(time.Hour)),
		"Send, delayed":        c.Send(t.Context(), letter{}, to, sqlq.Delay(time.Hour)),
		"SendMany":             c.SendMany(t.Context(), many[:2], to),
		"SendMany, by COPY":    c.SendMany(t.Context(), many, to),
		"SendMany, delayed":    c.SendMany(t.Context(), many[:2], to, sqlq.Delay(time.Hour)),
		"SendTx":               inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, letter{}, to) }),
		"SendTx, delayed":      inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, letter{}, to, sqlq.Delay(time.Hour)) }),
		"Publish":              c.Publish(t.Context(), posted{}),
		"Publish, delayed":     c.Publish(t.Context(), posted{}, sqlq.Delay(time.Hour)),
		"PublishTx":            inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, posted{}) }),
		"PublishTx, delayed":   inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, posted{}, sqlq.Delay(time.Second)) }),
		"SQL send":             do(pool, `SELECT sqlq.send('mine', 'post.Letter', '{}')`),
		"SQL send, delayed":    do(pool, `SELECT sqlq.send('mine', 'post.Letter', '{}', delay => '1 hour')`),
		"SQL publish":          do(pool, `SELECT sqlq.publish('post.Posted', '{}')`),
		"SQL publish, delayed": do(pool, `SELECT sqlq.publish('post.Posted', '{}', delay => '1 hour')`),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for sql, want := range map[string]int{
		`SELECT count(*) FROM sqlq.q_mine`:                          9 + len(many),
		`SELECT count(*) FROM sqlq.q_theirs`:                        3,
		`SELECT count(*) FROM sqlq.delayed WHERE queue = 'mine'`:    8,
		`SELECT count(*) FROM sqlq.delayed WHERE queue = 'theirs'`:  3,
		`SELECT count(*) FROM sqlq.delayed WHERE type LIKE '%sted'`: 6,
	} {
		if got := count(t, admin, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}

	other := sqlq.To("theirs")
	for what, err := range map[string]error{
		"Send":             c.Send(t.Context(), letter{}, other),
		"Send, delayed":    c.Send(t.Context(), letter{}, other, sqlq.Delay(time.Hour)),
		"SendMany":         c.SendMany(t.Context(), many[:2], other),
		"SendMany by COPY": c.SendMany(t.Context(), many, other),
		"SendTx":           inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, letter{}, other) }),
	} {
		if !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), `'producer', ARRAY['theirs'])`) {
			t.Errorf("%s to another queue: %v, want ErrPermissionDenied and the grant that is missing", what, err)
		}
	}
	if err := c.Run(t.Context(), receiveLetters("mine")); !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), `'consumer', ARRAY['mine'])`) {
		t.Errorf("Run: %v, want ErrPermissionDenied and the grant that is missing", err)
	}
	refused(t, pool,
		`SELECT body FROM sqlq.q_mine`, `SELECT count(*) FROM sqlq.q_mine`, `SELECT body FROM sqlq.delayed`, `SELECT 1 FROM sqlq.error`, `SELECT 1 FROM sqlq.leased`,
		`INSERT INTO sqlq.q_mine (id, type, body) VALUES (sqlq.uuid_v7(), 't', '') RETURNING seq`,
		`INSERT INTO sqlq.q_mine (id, type, body, attempt) VALUES (sqlq.uuid_v7(), 't', '', 3)`,
		`DELETE FROM sqlq.q_mine`, `UPDATE sqlq.q_mine SET body = ''`, `TRUNCATE sqlq.q_mine`, `DELETE FROM sqlq.delayed`,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now(), sqlq.uuid_v7(), 'delay', 'theirs', 't', '')`,
		`INSERT INTO sqlq.subscription (type, queue) VALUES ('t', 'mine')`, `SELECT * FROM sqlq.subscription`, `SELECT * FROM sqlq.instance`,
		`SELECT sqlq.send('theirs', 't', '1')`, `SELECT sqlq.send('theirs', 't', '1', delay => '1 hour')`, `SELECT sqlq.create_queue('new')`, `SELECT sqlq.drop_queue('mine')`,
		`SELECT sqlq.move_due(now(), 1)`, `SELECT sqlq.next_due(now())`, `SELECT sqlq.recover_leased()`, `SELECT sqlq.sweep_expired('mine', 0, 1)`,
		`SELECT sqlq.grant_role(current_user, 'operator')`, `SELECT sqlq.revoke_role(current_user)`, `CREATE TABLE sqlq.q_new (a int)`,
		`CREATE FUNCTION sqlq.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'`, `SELECT last_value FROM sqlq.s_mine`)
}

// do runs a statement.
func do(pool *pgxpool.Pool, sql string, args ...any) error {
	_, err := pool.Exec(context.Background(), sql, args...)
	return err
}

// A consumer runs its endpoint with all that belongs to it, and keeps house for queues that are not its own, whose
// messages it does not get to see.
func TestConsumer(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, `CREATE TABLE public.seen (n int)`)
	execSQL(t, admin, `GRANT INSERT, SELECT ON public.seen TO PUBLIC`)
	pool := granted(t, url, "consumer", "mine")
	var said logged
	c := open(t, pool, sqlq.Config{Logger: said.logger(), HoldLimit: 5 * time.Millisecond})
	seen := func(n int) error {
		_, err := pool.Exec(context.Background(), `INSERT INTO public.seen VALUES ($1)`, n)
		return err
	}
	endpoint := sqlq.Endpoint{Name: "mine", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			switch d.Message.N {
			case 1:
				return errors.New("never")
			case 2: // leased meanwhile
				eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.leased WHERE id = $1`, d.ID.String())
			case 3:
				return d.Send(letter{N: 100}, sqlq.To("theirs"))
			case 4:
				return d.Send(letter{N: 5}, sqlq.To("mine"))
			}
			return seen(d.Message.N)
		}),
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[posted]) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.seen VALUES ($1)`, 10+d.Message.N)
			if d.Message.N == 1 {
				return errors.New("never")
			}
			return err
		}),
	}}
	// What a dead instance left, in its queue and in another: who finds it gives back both.
	dead := `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) OVERRIDING SYSTEM VALUE VALUES (-1, $1, 1, sqlq.uuid_v7(), now(), 0, 'post.Letter', $2)`
	execSQL(t, admin, dead, "mine", []byte(`{"N":6}`))
	execSQL(t, admin, dead, "theirs", []byte(`{"N":7}`))
	stop := run(t, c, endpoint)
	sender := open(t, admin, sqlq.Config{})
	for n := range 5 {
		if err := sender.Send(t.Context(), letter{N: n}, sqlq.To("mine")); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		if err := sender.Publish(t.Context(), posted{N: n}); err != nil {
			t.Fatal(err)
		}
	}
	for _, queue := range []string{"mine", "theirs"} {
		if err := sender.Send(t.Context(), letter{N: 8}, sqlq.To(queue), sqlq.Delay(10*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	// As the leader it also moves what waits for a queue that is gone.
	execSQL(t, admin, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now(), sqlq.uuid_v7(), 'delay', 'gone', 't', '')`)
	eventuallyCount(t, admin, 2, `SELECT count(*) FROM sqlq.error WHERE queue = 'mine' AND attempts = 4 AND message = 'never'`)
	eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.error WHERE queue = 'mine' AND message LIKE 'settle: %permission denied for table q_theirs%'`)
	eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.error WHERE queue = 'gone'`)
	eventuallyCount(t, admin, 7, `SELECT count(DISTINCT n) FROM public.seen WHERE n IN (0, 2, 5, 6, 8, 10, 12)`)
	eventuallyCount(t, admin, 5, `SELECT count(*) FROM sqlq.q_theirs`) // three events, the delayed one, and that of the dead
	eventuallyCount(t, admin, 0, `SELECT (SELECT count(*) FROM sqlq.q_mine) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)

	leased := `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) SELECT id, $1, 1, sqlq.uuid_v7(), now(), 0, 'post.Letter', '' FROM sqlq.instance`
	execSQL(t, admin, leased, "theirs")
	execSQL(t, admin, leased, "mine")
	if n := count(t, pool, `SELECT count(*) FROM sqlq.leased WHERE queue = 'mine'`) + 10*count(t, pool, `SELECT count(*) FROM sqlq.leased`); n != 11 {
		t.Errorf("it sees %d, want the leased message of its own queue alone", n)
	}
	if tag, err := pool.Exec(t.Context(), `DELETE FROM sqlq.leased WHERE queue = 'theirs'`); err != nil || tag.RowsAffected() != 0 {
		t.Errorf("it removes a leased message of another queue: %v, %v", tag, err)
	}
	refused(t, pool,
		`SELECT body FROM sqlq.q_theirs`, `DELETE FROM sqlq.q_theirs`, `INSERT INTO sqlq.q_theirs (id, type, body) VALUES (gen_random_uuid(), 't', '')`,
		`SELECT body FROM sqlq.delayed`, `DELETE FROM sqlq.delayed`, `SELECT body FROM sqlq.error`, `DELETE FROM sqlq.error`, `UPDATE sqlq.q_mine SET body = ''`,
		`UPDATE sqlq.leased SET body = ''`, `UPDATE sqlq.leased SET queue = 'mine'`,
		`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (-1, 'theirs', 1, gen_random_uuid(), now(), 0, 't', '')`,
		`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
			VALUES (gen_random_uuid(), 'theirs', 'theirs', '', 't', '', 1, now(), now(), '', '', '')`,
		`INSERT INTO sqlq.subscription (type, queue) VALUES ('t', 'theirs')`,
		`SELECT sqlq.send('mine', 't', '1')`, `SELECT sqlq.publish('t', '1')`, `SELECT sqlq.create_queue('new')`, `SELECT sqlq.drop_queue('mine')`, `SELECT sqlq.grant_role(current_user, 'operator')`)
	if tag, err := pool.Exec(t.Context(), `UPDATE sqlq.queue SET low = 1000 WHERE name = 'theirs'`); err != nil || tag.RowsAffected() != 0 {
		t.Errorf("it hides the messages of another queue: %v, %v", tag, err)
	}
	stop()
	if err := c.Run(t.Context(), receiveLetters("theirs")); !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), `'consumer', ARRAY['theirs'])`) {
		t.Errorf("Run of another's endpoint: %v, want ErrPermissionDenied and the grant that is missing", err)
	}
	if err := c.Run(t.Context(), receiveLetters("new")); !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), "sqlq queue create new") {
		t.Errorf("Run of an endpoint without a queue: %v, want ErrPermissionDenied and the command", err)
	}
	if s := said.all(); strings.Contains(s, "housekeeping") || strings.Contains(s, "permission denied for schema") {
		t.Errorf("it says\n%s", s)
	}
}

// An operator of all queues works on all messages, also in queues that are made later, by it or others, and gone.
func TestOperator(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	pool := granted(t, url, "operator")
	consumer := open(t, granted(t, url, "consumer"), sqlq.Config{})
	o, ctx := ops.New(pool, "sqlq"), t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	made, err := o.Queues.Create(ctx, "new")
	if err != nil || !made {
		t.Fatalf("Queues.Create: %v, %v", made, err)
	}
	fail := sqlq.Endpoint{Name: "new", Retry: noRetry, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return errors.New("never") })}}
	stop := run(t, consumer, fail) // whoever made its queue
	for range 3 {
		must("send", do(pool, `SELECT sqlq.send('new', 'post.Letter', '{}')`))
	}
	eventuallyCount(t, admin, 3, `SELECT count(*) FROM sqlq.error`)
	stop()
	failed, err := o.Failed.List(ctx, ops.Filter{Queue: "new", Limit: 10})
	if err != nil || len(failed) != 3 {
		t.Fatalf("Failed.List: %v, %v", failed, err)
	}
	_, err = o.Failed.Show(ctx, fmt.Sprint(failed[0].Number))
	must("Failed.Show", err)
	_, err = o.Failed.Archive(ctx, ops.Filter{Names: []string{failed[0].ID}}, ops.ChangeOptions{})
	must("Archive", err)
	_, err = o.Failed.Replay(ctx, ops.Filter{Queue: "new"}, ops.ReplayOptions{})
	must("Replay", err)
	peeked, err := o.Ready.List(ctx, "new", ops.Filter{Limit: 10}, ops.Looking{})
	if err != nil || len(peeked) != 2 || len(peeked[0].Body) == 0 {
		t.Errorf("Peek: %v, %v", peeked, err)
	}
	must("send", do(pool, `SELECT sqlq.send('new', 'post.Letter', '{}', delay => '1 hour')`))
	queues, err := o.Queues.List(ctx)
	if err != nil || len(queues) != 3 || queues[1].Ready.N != 2 || queues[1].Delayed.N != 1 {
		t.Errorf("Queues.List: %+v, %v", queues, err)
	}
	_, err = o.Queues.Show(ctx, "new")
	must("Queues.Show", err)
	if purged, err := o.Ready.Purge(ctx, "new", ops.Filter{}, ops.PurgeOptions{Delayed: true}); err != nil || purged.Ready != 2 || purged.Delayed != 1 {
		t.Errorf("Purge: %v, %v", purged, err)
	}
	_, err = o.Queues.Drop(ctx, "new", false)
	must("Queues.Drop", err)
	if failed, err := o.Failed.List(ctx, ops.Filter{Status: ops.StatusArchived, Limit: 10}); err != nil || len(failed) != 1 {
		t.Errorf("failed messages of a queue that is gone: %v, %v", failed, err)
	}
	refused(t, pool, `DROP TABLE sqlq.q_mine`, `ALTER TABLE sqlq.q_mine ADD x int`, `UPDATE sqlq.error SET message = ''`, `TRUNCATE sqlq.error`, `DELETE FROM sqlq.queue`,
		`SELECT sqlq.grant_role(current_user, 'producer')`, `CREATE TABLE sqlq.q_mine2 (a int)`, `INSERT INTO sqlq.queue (name) VALUES ('x')`)

	// One of named queues has those alone, and makes and drops none.
	some := granted(t, url, "operator", "mine")
	if queues, err := ops.New(some, "sqlq").Queues.List(ctx); err != nil || len(queues) != 1 || queues[0].Name != "mine" {
		t.Errorf("Queues.List of an operator of one queue: %+v, %v", queues, err)
	}
	if failed, err := ops.New(some, "sqlq").Failed.List(ctx, ops.Filter{Limit: 10}); err != nil || len(failed) != 0 {
		t.Errorf("Failed.List of an operator of one queue: %+v, %v", failed, err)
	}
	refused(t, some, `SELECT body FROM sqlq.q_theirs`, `DELETE FROM sqlq.q_theirs`, `SELECT sqlq.drop_queue('mine')`, `SELECT sqlq.create_queue('x')`)
}

// A table of the caller's own that bears the name of a queue's, in pg_temp, is no queue: it opens no rows, and what runs as the
// owner does not fill it, nor run its triggers.
func TestTemporaryTableIsNoQueue(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	execSQL(t, admin, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now(), gen_random_uuid(), 'delay', 'gone', 'T', '{}')`)
	execSQL(t, admin, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (-1, 'gone', 1, gen_random_uuid(), now(), 0, 'T', '{}')`)
	execSQL(t, admin, `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		VALUES (gen_random_uuid(), 'gone', 'gone', 'h', 'T', '{}', 1, now(), now(), 'e', 'm', 'f')`)
	operator, consumer := granted(t, url, "operator", "mine"), granted(t, url, "consumer", "mine")
	for _, pool := range []*pgxpool.Pool{operator, consumer} {
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		for _, sql := range []string{
			`CREATE TEMPORARY TABLE q_gone (seq bigint GENERATED ALWAYS AS IDENTITY, id uuid, sent_at timestamptz, expires_at timestamptz, attempt smallint, type text, headers json, body bytea)`,
			`CREATE FUNCTION pg_temp.took() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it ran as %'', current_user; END'`,
			`CREATE TRIGGER took BEFORE INSERT ON q_gone FOR EACH ROW EXECUTE FUNCTION pg_temp.took()`,
		} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		var seen int
		if pool == operator {
			err = conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM sqlq.error) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`).Scan(&seen)
			if err != nil || seen != 0 {
				t.Errorf("%d rows are seen, err %v", seen, err)
			}
		}
		for _, sql := range []string{`SELECT sqlq.recover_leased()`, `SELECT sqlq.move_due('-infinity', 10)`} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.error WHERE error_type = 'NoQueue'`); n != 1 {
		t.Errorf("%d delayed messages of the queue that is gone came to the error table, want 1", n)
	}
}
