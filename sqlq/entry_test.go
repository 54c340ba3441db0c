package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// forged are headers that a sender writes by hand to look like the library's bookkeeping; escapes and spaces are JSON's.
var forged = []string{
	`{"sqlq-crashes":"0"}`,
	`{"sqlq-crashes":"9"}`,
	`{"tenant":"north","sqlq-replays":"7"}`,
	`{"sqlq-first-failed-at":"0000-01-01T00:00:00Z"}`,
	`{ "sqlq-crashes" :
		"1"}`,
	`{"\u0073qlq-crashes":"1"}`,
	`{"sqlq\u002dreplays":"1"}`,
	`{"a":"\u0073","sqlq-first\u002Dfailed-at":"2001-01-01T00:00:00Z"}`,
	`{"\u0073\u0071\u006c\u0071\u002d\u0063\u0072\u0061\u0073\u0068\u0065\u0073":"1"}`,
	`{"x\"":"\"",` + "\n" + `"sqlq-\u0077aited":"9h"}`,
}

// similar look like it, and are a sender's right.
var similar = []string{
	`{"sqlq-content-type":"application/json","sqlq-correlation-id":"SO-17","sqlq-conversation-id":"SO-16"}`,
	`{"source":"sqlq-replays","x":"\"sqlq-crashes\":\"1\""}`,
	`{"a":"\u0073qlq-crashes","b":"sqlq-crashes"}`,
	`{"a":"\u003cb\u003e"}`,
	`{"\u003cb\u003e":"","caf\u00e9":"1","\u007f":"","tab\u0009":""}`,
	`{"\\u0073qlq-crashes":"1","x\"sqlq-crashes":"1",",\"sqlq-replays":"","{ \"sqlq-waited\"":"9h"}`,
	`{}`,
}

// A producer writes every header of the library's by hand, in every way that SQL and Go give it: the database refuses those that
// say how often a message was tried, replayed or killed a process. Nothing of it changes attempts, replays, crash handling or order.
func TestProducerForgesNoBookkeeping(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	pool := granted(t, url, "producer", "mine")
	// One that handles another queue's messages has more privileges on the tables that all queues share.
	role, neighbour := newRole(t, url, "neighbour_")
	execSQL(t, admin, `SELECT sqlq.grant_role($1, 'producer', ARRAY['mine']), sqlq.grant_role($1, 'consumer', ARRAY['theirs'])`, role)
	ways := map[string]string{
		"insert":         `INSERT INTO sqlq.q_mine (id, type, headers, body) VALUES (sqlq.uuid_v7(), 'post.Letter', $1::text::json, '{}')`,
		"insert delayed": `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, headers, body) VALUES (now(), sqlq.uuid_v7(), 'delay', 'mine', 'post.Letter', $1::text::json, '{}')`,
		"put_message":    `SELECT sqlq.put_message('mine', sqlq.uuid_v7(), 'post.Letter', $1::text::json, '{}', NULL, NULL)`,
		"publish_batch":  `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[$1::text], ARRAY['{}'::bytea], NULL)`,
		"publish due_at": `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[$1::text], ARRAY['{}'::bytea], NULL, due_at => ARRAY[now()])`,
	}
	for _, by := range []*pgxpool.Pool{pool, neighbour, admin} {
		for way, sql := range ways {
			for _, headers := range forged {
				if err := do(by, sql, headers); sqlStateOf(err) != "23514" {
					t.Errorf("%s of %s: %v, want that the table refuses it (23514)", way, headers, err)
				}
			}
			for _, headers := range similar {
				if err := do(by, sql, headers); err != nil {
					t.Errorf("%s of %s: %v", way, headers, err)
				}
			}
		}
		for _, headers := range forged {
			_, err := copyText(t, by, `COPY sqlq.q_mine (id, type, headers, body) FROM STDIN`, fmt.Sprintf("%s\tpost.Letter\t%s\t{}\n", sqlq.NewID(), strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`).Replace(headers)))
			if sqlStateOf(err) != "23514" {
				t.Errorf("COPY of %s: %v, want that the table refuses it (23514)", headers, err)
			}
		}
	}
	for _, way := range []string{"send('mine', 'post.Letter', '{}', $1::text::json)", "send_many('mine', 'post.Letter', ARRAY['{}'::json], $1::text::json)", "publish('post.Posted', '{}', $1::text::json)"} {
		for _, headers := range forged {
			if err := do(pool, `SELECT sqlq.`+way, headers); sqlStateOf(err) != "22023" {
				t.Errorf("%s of %s: %v, want that it is refused", way, headers, err)
			}
		}
	}
	for _, name := range []string{"sqlq-crashes", "sqlq-replays", "sqlq-first-failed-at", "SQLQ-crashes"} {
		if err := open(t, pool, sqlq.Config{}).Send(t.Context(), letter{}, sqlq.To("mine"), sqlq.WithHeader(name, "1")); !errors.Is(err, sqlq.ErrInvalidName) {
			t.Errorf("WithHeader(%q): %v", name, err)
		}
	}
	// What a consumer may say of its own queue's messages it may not of another's, of which it is only a producer.
	refused(t, neighbour,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body, attempt) VALUES (now(), sqlq.uuid_v7(), 'delay', 'mine', 't', '', 5)`,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now(), sqlq.uuid_v7(), 'retry', 'mine', 't', '')`,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body, error) VALUES (now(), sqlq.uuid_v7(), 'delay', 'mine', 't', '', 'never')`,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body, sent_at, headers) VALUES (now(), sqlq.uuid_v7(), 'delay', 'mine', 't', '', '2001-01-01', '{"sqlq-crashes":"1"}')`,
		`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, headers, body) VALUES (-1, 'mine', 1, sqlq.uuid_v7(), '2001-01-01', 0, 't', '{"sqlq-crashes":"1"}', '')`,
		`INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
			VALUES (sqlq.uuid_v7(), 'mine', 'mine', '', 't', '', 1, now(), now(), '', '', '')`,
		`INSERT INTO sqlq.q_mine (id, type, body, attempt) VALUES (sqlq.uuid_v7(), 't', '', 5)`,
		`INSERT INTO sqlq.q_mine (id, type, body, sent_at) VALUES (sqlq.uuid_v7(), 't', '', '2001-01-01')`)
	// What got in is handled at its first attempt, and nobody is under suspicion.
	var mu sync.Mutex
	attempts := map[int]int{}
	c := open(t, admin, sqlq.Config{})
	count := func(_ context.Context, in *sqlq.Incoming) error {
		mu.Lock()
		defer mu.Unlock()
		attempts[in.Attempt]++
		return nil
	}
	stop := run(t, c, sqlq.Endpoint{Name: "mine", Middleware: []func(sqlq.HandleFunc) sqlq.HandleFunc{func(sqlq.HandleFunc) sqlq.HandleFunc { return count }},
		Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return nil }), sqlq.Handle(func(context.Context, *sqlq.Delivery[posted]) error { return nil })}})
	eventuallyCount(t, admin, 0, `SELECT (SELECT count(*) FROM sqlq.q_mine) + (SELECT count(*) FROM sqlq.delayed WHERE queue = 'mine')`)
	if s := statsOf(c); s.Leased != 0 || s.Retried != 0 || s.Failed != 0 {
		t.Errorf("%+v, want that each was handled once and none by lease", s)
	}
	stop()
	if len(attempts) != 1 || attempts[1] != 3*len(ways)*len(similar) {
		t.Errorf("attempts %v, want %d, each the first", attempts, 3*len(ways)*len(similar))
	}
}

// copyText runs a COPY FROM STDIN.
func copyText(t *testing.T, pool *pgxpool.Pool, sql, text string) (int64, error) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	tag, err := conn.Conn().PgConn().CopyFrom(t.Context(), strings.NewReader(text), sql)
	return tag.RowsAffected(), err
}

// What the library itself moves carries its bookkeeping everywhere, whoever it runs as, and whatever the clock says.
func TestBookkeepingIsMoved(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	const all = `{"a":"b","sqlq-first-failed-at":"2026-01-02T03:04:05.000006Z","sqlq-replays":"7","sqlq-crashes":"1"}`
	for _, sql := range []string{
		// The clock of the server was ahead when it was sent, as that of another one may be before a failover.
		`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, headers, body) VALUES (-1, 'post', 1, sqlq.uuid_v7(), now() + interval '1 hour', 0, 'recovered', $1::text::json, '1')`,
		`INSERT INTO sqlq.error (id, queue, endpoint, host, type, headers, body, attempts, sent_at, expires_at, first_failed_at, error_type, message, fingerprint)
			VALUES (sqlq.uuid_v7(), 'post', 'post', 'h', 'replayed', $1::text::json, '1', 1, now() + interval '1 hour', 'infinity', now(), 'e', 'm', 'f')`,
		`INSERT INTO sqlq.delayed (due_at, id, sent_at, attempt, why, queue, type, headers, body)
			VALUES (now(), sqlq.uuid_v7(), now() + interval '1 hour', 2, 'retry', 'post', 'moved', $1::text::json, '1')`,
	} {
		execSQL(t, pool, sql, all)
	}
	execSQL(t, pool, `SELECT sqlq.recover_leased(), sqlq.replay('post'), sqlq.move_due('-infinity', 10)`)
	rows, err := pool.Query(t.Context(), `SELECT type FROM sqlq.q_post WHERE headers::text LIKE '%"sqlq-replays":%' AND (expires_at IS NULL) ORDER BY type`)
	if err != nil {
		t.Fatal(err)
	}
	if types, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || fmt.Sprint(types) != "[moved recovered replayed]" {
		t.Errorf("in the queue are %v, %v", types, err)
	}
}
