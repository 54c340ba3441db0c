package sqlq_test

import (
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// A key, a correlation id and a queue to reply to become the library's own headers, beside those of the sender, which cannot name
// them.
func TestSQLKeyCorrelationAndReply(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['post', 'answers']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
	producer := granted(t, url, "producer", "post")
	const all = `key => 'k "1"', correlation_id => 'order 17', reply_to => 'answers'`
	const headers = `{"A":"b","sqlq-correlation-id":"order 17","sqlq-key":"k \"1\"","sqlq-reply-to":"q:answers","z":"y"}`
	for _, sql := range []string{
		`SELECT sqlq.send('post', 'post.Letter', '{}', '{"z": "y", "A": "b"}', ` + all + `)`,
		`SELECT sqlq.send_many('post', 'post.Letter', ARRAY['{}', '{}']::json[], '{"z": "y", "A": "b"}', ` + all + `)`,
		`SELECT sqlq.publish('post.Posted', '{}', '{"z": "y", "A": "b"}', ` + all + `)`,
		`SELECT sqlq.send('post', 'post.Letter', '{}', '{"z": "y", "A": "b"}', delay => '1 hour', ` + all + `)`,
	} {
		execSQL(t, producer, sql)
	}
	if n := count(t, pool, `SELECT count(*) FROM (SELECT headers FROM sqlq.q_post UNION ALL SELECT headers FROM sqlq.delayed) m WHERE headers::text = $1`, headers); n != 5 {
		t.Errorf("%d of 5 messages have the headers", n)
	}
	execSQL(t, producer, `SELECT sqlq.send('post', 'post.Letter', '{}', key => 'k')`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post WHERE headers::text = '{"sqlq-key":"k"}'`); n != 1 {
		t.Errorf("%d messages have a key alone, want 1", n)
	}
	for sql, state := range map[string]string{
		`SELECT sqlq.send('post', 'post.Letter', '{}', key => '')`:                           "22023",
		`SELECT sqlq.send('post', 'post.Letter', '{}', key => repeat('k', 201))`:             "22023",
		`SELECT sqlq.send('post', 'post.Letter', '{}', correlation_id => repeat('c', 1001))`: "22023",
		`SELECT sqlq.send('post', 'post.Letter', '{}', reply_to => 'no such~queue')`:         "42602",
		`SELECT sqlq.publish('post.Posted', '{}', '{"sqlq-key": "k"}')`:                      "22023",
		`SELECT sqlq.send_many('post', 'post.Letter', ARRAY['{}']::json[], key => '')`:       "22023",
	} {
		if _, err := producer.Exec(t.Context(), sql); sqlStateOf(err) != state {
			t.Errorf("%s: %v, want SQLSTATE %s", sql, err, state)
		}
	}
}

// Of the forms of one event each queue gets one: of a settled subscription first, then the newest that it is subscribed to; without
// forms each row is an event. Delayed copies are chosen alike.
func TestSQLForms(t *testing.T) {
	t.Parallel()
	pool := poolOn(t, pgtest.Database(t))
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['old', 'both', 'rollout', 'new', 'none']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue, settled) VALUES ('e.V1', 'old', true), ('e.V1', 'both', true), ('e.V2', 'both', true),
		('e.V1', 'rollout', true), ('e.V2', 'rollout', false), ('e.V2', 'new', false)`)
	const batch = `SELECT string_agg(queue || ' ' || copies, ', ' ORDER BY queue) FROM sqlq.publish_batch(
		ARRAY[$1::uuid, $1::uuid, $2::uuid, $2::uuid], ARRAY['e.V2', 'e.V1', 'e.V2', 'e.V1'], ARRAY[NULL, NULL, '{"a":"b"}', '{"a":"b"}'],
		ARRAY['two', 'one', 'two', 'one']::bytea[], ARRAY[NULL, NULL, NULL, NULL]::interval[]`
	a, b := sqlq.NewID().String(), sqlq.NewID().String()
	var got string
	for _, c := range []struct{ with, table, want string }{
		{`, forms => ARRAY[1, 1, 2, 2])`, "", "both 2, new 2, old 2, rollout 2"},
		{`)`, "", "both 4, new 2, old 2, rollout 4"},
		{`, forms => ARRAY[1, 1, 2, 2], due_at => array_fill(now() + interval '1 hour', ARRAY[4]))`, "delayed", "both 2, new 2, old 2, rollout 2"},
	} {
		if err := pool.QueryRow(t.Context(), batch+c.with, a, b).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.with, got, err, c.want)
		}
		if c.with == `)` {
			continue
		}
		for queue, form := range map[string]string{"old": "one", "both": "two", "rollout": "one", "new": "two"} {
			from, where := "sqlq.q_"+queue, ""
			if c.table != "" {
				from, where = "sqlq.delayed", ` WHERE queue = '`+queue+`'`
			}
			text := ""
			if err := pool.QueryRow(t.Context(), `SELECT string_agg(convert_from(body, 'UTF8') || coalesce(headers::text, ''), ' ' ORDER BY seq) FROM `+from+where).Scan(&text); err != nil || text != form+" "+form+`{"a":"b"}` {
				t.Errorf("%s: queue %s got %q, %v; want form %s of each event", c.with, queue, text, err, form)
			}
		}
		execSimple(t, pool, `DELETE FROM sqlq.q_old; DELETE FROM sqlq.q_both; DELETE FROM sqlq.q_rollout; DELETE FROM sqlq.q_new`)
	}
	for _, wrong := range []string{`ARRAY[1, 1, 2]`, `ARRAY[1, 1, 2, NULL]`} {
		if err := pool.QueryRow(t.Context(), batch+`, forms => `+wrong+`)`, a, b).Scan(&got); sqlStateOf(err) != "22023" {
			t.Errorf("forms %s: %v, want 22023", wrong, err)
		}
	}
}

// What later kinds of queues are named with is kept out of queue names, and what versions are written with out of message types, in
// SQL and in Go; delayed messages may wait for more than a delay and a retry.
func TestReservedCharacters(t *testing.T) {
	t.Parallel()
	pool := poolOn(t, pgtest.Database(t))
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	for sql, state := range map[string]string{
		`SELECT sqlq.create_queue('post~1')`:              "42602",
		`INSERT INTO sqlq.queue (name) VALUES ('post~1')`: "23514",
		`SELECT sqlq.send('post', 'post.Letter@2', '{}')`: "22023",
		`SELECT sqlq.publish('post.Posted@2', '{}')`:      "22023",
	} {
		if _, err := pool.Exec(t.Context(), sql); sqlStateOf(err) != state {
			t.Errorf("%s: %v, want SQLSTATE %s", sql, err, state)
		}
	}
	c := open(t, pool, sqlq.Config{})
	if err := c.Send(t.Context(), letter{}, sqlq.To("post~1")); err == nil || !strings.Contains(err.Error(), "post~1") {
		t.Errorf("Send to a queue with ~: %v", err)
	}
	if err := c.Send(t.Context(), versioned{}, sqlq.To("post")); err == nil || !strings.Contains(err.Error(), "post.Letter@2") {
		t.Errorf("Send of a type with @: %v", err)
	}
	for _, why := range []string{"timeout", "schedule"} {
		execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now(), gen_random_uuid(), $1, 'post', 'post.Letter', '{}')`, why)
	}
}

type versioned struct{}

func (versioned) MessageType() string { return "post.Letter@2" }
