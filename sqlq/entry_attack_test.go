package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// sprung is an SQLSTATE that only the trap of TestDroppedQueueIsNoTemporaryTable raises.
const sprung = "XT123"

// A queue that is dropped before a function comes to it, or while the function waits for its table, leaves its name to no table in
// the caller's pg_temp: whose triggers would run as the owner of the schema.
func TestDroppedQueueIsNoTemporaryTable(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	role, pool := newRole(t, url, "mallory_")
	execSQL(t, admin, `SELECT sqlq.grant_role($1, 'producer'), sqlq.grant_role($1, 'operator')`, role)
	// Each is called with the queue's name as %[1]s.
	calls := map[string]string{
		"publish":        `SELECT sqlq.publish('post.Posted', '{}')`,
		"publish_batch":  `SELECT * FROM sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], NULL, ARRAY['{}'::bytea], NULL)`,
		"publish_due_at": `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL], ARRAY['{}'::bytea], NULL, due_at => ARRAY[now()])`,
		"send":           `SELECT sqlq.send('%[1]s', 't', '{}')`,
		"send_many":      `SELECT sqlq.send_many('%[1]s', 't', ARRAY['{}'::json])`,
		"put_message":    `SELECT sqlq.put_message('%[1]s', sqlq.uuid_v7(), 't', NULL, '{}', NULL, NULL)`,
		"replay":         `SELECT sqlq.replay(type => '%[1]s')`,
		"drop_queue":     `SELECT sqlq.drop_queue('%[1]s', true)`,
		"pause":          `SELECT sqlq.pause('%[1]s')`,
	}
	for _, late := range []bool{false, true} {
		for name, call := range calls {
			t.Run(fmt.Sprint(name, map[bool]string{false: " in an old snapshot", true: " waits for the drop"}[late]), func(t *testing.T) {
				queue := fmt.Sprintf("%s_%t", name, late)
				call := fmt.Sprintf(call+`%.0[1]s`, queue)
				execSQL(t, admin, `SELECT sqlq.create_queue($1)`, queue)
				execSQL(t, admin, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', $1)`, queue)
				execSQL(t, admin, `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
					VALUES (sqlq.uuid_v7(), $1, $1, 'h', $1, '{}', 1, now(), now(), 'e', 'm', 'f')`, queue)
				conn, err := pool.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Release()
				table := pgx.Identifier{"q_" + queue}.Sanitize()
				for _, sql := range []string{
					`CREATE TEMPORARY TABLE ` + table + ` (seq bigint GENERATED ALWAYS AS IDENTITY, id uuid, sent_at timestamptz, expires_at timestamptz, attempt smallint, type text, headers json, body bytea)`,
					`CREATE FUNCTION pg_temp.took() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran as %', current_user USING ERRCODE = '` + sprung + `'; END $$`,
					`CREATE TRIGGER took BEFORE INSERT ON ` + table + ` FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.took()`,
					`BEGIN ISOLATION LEVEL ` + map[bool]string{false: `REPEATABLE READ`, true: `READ COMMITTED`}[late],
					`SELECT count(*) FROM sqlq.queue`,
				} {
					if _, err := conn.Exec(t.Context(), sql); err != nil {
						t.Fatalf("%s: %v", sql, err)
					}
				}
				drop, err := admin.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer drop.Rollback(context.Background())
				if _, err := drop.Exec(t.Context(), `SELECT sqlq.drop_queue($1, true)`, queue); err != nil {
					t.Fatal(err)
				}
				if !late {
					if err := drop.Commit(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				called := make(chan error, 1)
				go func() {
					_, err := conn.Exec(context.Background(), call)
					called <- err
				}()
				if late {
					pid := conn.Conn().PgConn().PID()
					eventually(t, "it waits, or has ended", func() (bool, string) {
						return len(called) == 1 || count(t, admin, `SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted`, pid) > 0, "it does neither"
					})
					if err := drop.Commit(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if err = <-called; sqlStateOf(err) == sprung {
					t.Errorf("the caller's trigger ran: %v", err)
				}
				if _, err := conn.Exec(t.Context(), `ROLLBACK; DISCARD TEMP`); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// drop_queue gives up after some seconds where a transaction has the queue, says who, and lets senders pass meanwhile.
func TestDropQueueLetsSendersPass(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post'), sqlq.create_queue('other')`)
	held, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Rollback(context.Background())
	var pid int
	if err := held.QueryRow(t.Context(), `SELECT pg_backend_pid() FROM sqlq.send('post', 't', '1')`).Scan(&pid); err != nil {
		t.Fatal(err)
	}
	dropped := make(chan error, 1)
	go func() { dropped <- do(pool, `SELECT sqlq.drop_queue('post', true)`) }()
	sent := 0
	for err = nil; len(dropped) == 0; sent++ {
		execSQL(t, pool, `SET lock_timeout = '3s'; SELECT sqlq.send('post', 't', '1'), sqlq.create_queue('other'); RESET lock_timeout`, pgx.QueryExecModeSimpleProtocol)
	}
	if err := <-dropped; sqlStateOf(err) != "55P03" || !strings.Contains(pgError(err).Message, `queue "post" is in use: process `) ||
		!strings.Contains(pgError(err).Message, fmt.Sprint(pid)) || pgError(err).Hint == "" {
		t.Errorf("drop_queue: %v (%+v)", err, pgError(err))
	}
	if sent < 10 {
		t.Errorf("%d sends while it was tried to drop the queue", sent)
	}
	if err := held.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, `SELECT sqlq.drop_queue('post', true)`); n != sent {
		t.Errorf("%d messages went with the queue, want %d", n, sent)
	}
}

// An old snapshot does not make a queue look empty to drop_queue.
func TestDropQueueSeesWhatItsSnapshotDoesNot(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		tx, err := pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background())
		if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM sqlq.queue`); err != nil {
			t.Fatal(err)
		}
		execSQL(t, pool, `SELECT sqlq.send('post', 't', '1')`)
		if _, err := tx.Exec(t.Context(), `SELECT sqlq.drop_queue('post')`); sqlStateOf(err) != "55000" {
			t.Errorf("%s: %v, want that it is refused", level, err)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post`); n == 0 {
			t.Errorf("%s: the message is gone", level)
		}
		execSQL(t, pool, `DELETE FROM sqlq.q_post`)
	}
	if err := inTx(t, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT sqlq.drop_queue('post')`, pgx.QueryExecModeSimpleProtocol)
		return err
	}); err != nil {
		t.Errorf("an empty queue: %v", err)
	}
}
