package sqlq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// The far future is far, and the far past is past, also where a time.Duration ends: whatever a row says when it expires, and
// however it is received, the queue goes on.
func TestFarTimesToLive(t *testing.T) {
	t.Parallel()
	lives := map[string]bool{"2300-01-01": true, "2319-01-01": true, "9999-12-31": true, "10000-01-01": true, "294276-12-31": true, "infinity": true,
		"-infinity": false, "4713-01-01 BC": false, "0001-01-01": false, "1700-01-01": false}
	for _, how := range []string{"held", "by lease", "removed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			if how == "by lease" {
				crashLately(t, pool, "post")
			}
			for expires := range lives {
				// What was sent before there was a check, or by the owner with a time of its own.
				execSQL(t, pool, `INSERT INTO sqlq.q_post (id, sent_at, expires_at, type, body) VALUES (sqlq.uuid_v7(), now() - interval '1 s', $1::text::timestamptz, 'post.Letter', convert_to(json_build_object('Where', $1::text)::text, 'UTF8'))`, expires)
			}
			for _, sent := range []string{"infinity", "-infinity", "294276-12-31", "4713-01-01 BC"} {
				execSQL(t, pool, `INSERT INTO sqlq.q_post (id, sent_at, type, body) VALUES (sqlq.uuid_v7(), $1::text::timestamptz, 'post.Letter', convert_to(json_build_object('Where', 'sent at ' || $1::text)::text, 'UTF8'))`, sent)
			}
			var mu sync.Mutex
			got := map[string]int{}
			c := open(t, pool, sqlq.Config{})
			retry := sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}}
			if how == "removed" {
				retry = sqlq.RetryPolicy{}
			}
			stop := run(t, c, sqlq.Endpoint{Name: "post", AtMostOnce: how == "removed", Retry: retry,
				Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
					mu.Lock()
					defer mu.Unlock()
					if _, err := json.Marshal(d.SentAt); err != nil {
						return err
					}
					got[d.Message.Where]++
					if d.Attempt == 1 && how != "removed" {
						return errors.New("again") // by way of the delayed
					}
					return nil
				})}})
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
			eventually(t, "all are handled", func() (bool, string) { // at most once they are removed first, and what has not begun when Run ends goes back
				mu.Lock()
				defer mu.Unlock()
				return len(got) == 6+4, fmt.Sprint(got)
			})
			stop()
			if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n != 0 {
				t.Errorf("%d messages failed", n)
			}
			for expires, alive := range lives {
				if (got[expires] > 0) != alive {
					t.Errorf("%s: handled %d times", expires, got[expires])
				}
			}
			if len(got) != 6+4 {
				t.Errorf("handled were %v", got)
			}
		})
	}
}

// Times that no message can have are refused where they are written, whoever writes them.
func TestInfiniteTimesAreRefused(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
	for _, at := range []string{"infinity", "-infinity"} {
		for _, sql := range []string{
			`INSERT INTO sqlq.q_post (id, expires_at, type, body) VALUES (sqlq.uuid_v7(), '%s', 't', '1')`,
			`INSERT INTO sqlq.delayed (due_at, id, expires_at, why, queue, type, body) VALUES (now(), sqlq.uuid_v7(), '%s', 'delay', 'post', 't', '1')`,
			`INSERT INTO sqlq.delayed (due_at, id, sent_at, why, queue, type, body) VALUES ('%s', sqlq.uuid_v7(), '2001-01-01', 'delay', 'post', 't', '1')`,
		} {
			if err := do(pool, fmt.Sprintf(sql, at)); sqlStateOf(err) != "23514" {
				t.Errorf("%s with %s: %v, want 23514", sql, at, err)
			}
		}
	}
	execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES ('9999-12-31', sqlq.uuid_v7(), 'delay', 'post', 't', '1')`)
	if err := do(pool, `UPDATE sqlq.delayed SET due_at = 'infinity'`); sqlStateOf(err) != "23514" {
		t.Errorf("a message is due at infinity: %v", err)
	}
	if err := do(pool, `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL], ARRAY['1'::bytea], NULL, due_at => ARRAY['infinity'::timestamptz])`); sqlStateOf(err) != "23514" {
		t.Errorf("an event is due at infinity: %v", err)
	}
	intervals := []string{"101 years", "-1 s", "2000000 days", "178000000 years"}
	if count(t, pool, `SELECT current_setting('server_version_num')::int`) >= 170000 {
		intervals = append(intervals, "infinity", "-infinity")
	}
	for _, call := range []string{`send('post', 't', '1', %s => $1::text::interval)`, `send_many('post', 't', ARRAY['1'::json], %s => $1::text::interval)`, `publish('post.Posted', '1', %s => $1::text::interval)`} {
		for _, name := range []string{"delay", "expires_in"} {
			for _, interval := range intervals {
				if err := do(pool, `SELECT sqlq.`+fmt.Sprintf(call, name), interval); sqlStateOf(err) != "22023" {
					t.Errorf("%s of %s: %v, want 22023", fmt.Sprintf(call, name), interval, err)
				}
			}
		}
	}
	c := open(t, pool, sqlq.Config{})
	for _, option := range []sqlq.SendOption{sqlq.Delay(math.MaxInt64), sqlq.Delay(math.MinInt64), sqlq.ExpiresIn(math.MaxInt64), sqlq.At(time.Unix(math.MaxInt64/4, 0)), sqlq.At(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))} {
		if err := c.Send(t.Context(), letter{}, sqlq.To("post"), option); !errors.Is(err, sqlq.ErrInvalidTime) {
			t.Errorf("Send: %v, want ErrInvalidTime", err)
		}
	}
}

// What is imported with a time to live that ends with the calendar is handled.
func TestFarTimesAreImported(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	var lines strings.Builder
	for _, at := range []string{"2300-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "9999-12-31T23:59:59.999999Z"} {
		fmt.Fprintf(&lines, `{"type":"post.Letter","sent_at":"9999-01-01T00:00:00Z","expires_at":%q,"headers":{"sqlq-replays":"1"},"body":{"Where":%[1]q}}`+"\n", at)
	}
	done, err := ops.New(pool, "sqlq").Ready.Import(t.Context(), "post", strings.NewReader(lines.String()), ops.ImportOptions{})
	if err != nil || done.Ready != 3 {
		t.Fatalf("imported %+v, %v", done, err)
	}
	handled := make(chan string, 10)
	stop := run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { handled <- d.Message.Where; return nil })}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_post`)
	stop()
	if len(handled) != 3 {
		t.Errorf("%d messages were handled, want 3", len(handled))
	}
	for _, at := range []string{"infinity", "294276-12-31T00:00:00Z", "+10000-01-01T00:00:00Z"} {
		var damaged *ops.LineError
		if _, err := ops.New(pool, "sqlq").Ready.Import(t.Context(), "post", strings.NewReader(`{"type":"T","expires_at":"`+at+`","body":1}`), ops.ImportOptions{}); !errors.As(err, &damaged) {
			t.Errorf("%s: %v, want that the line is refused", at, err)
		}
	}
}

// A delayed message that is due in thousands of years is neither overdue nor in the way of others.
func TestFarDueTimeIsNotDue(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) SELECT at, sqlq.uuid_v7(), 'delay', 'post', 't', '1' FROM unnest(ARRAY['2400-01-01', '294276-12-31']::timestamptz[]) at`)
	if err := c.Send(t.Context(), letter{}, sqlq.Delay(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	handled := make(chan string, 10)
	stop := run(t, c, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { handled <- d.Type; return nil })}})
	select {
	case <-handled:
	case <-time.After(patience):
		t.Error("what is due was not handled")
	}
	stop()
	if n := count(t, pool, `SELECT count(*) FROM sqlq.delayed`); n != 2 {
		t.Errorf("%d messages are left delayed, want 2", n)
	}
}

// The limits of sizes hold in each of the SQL functions, and in the table for those who write past them.
func TestLimitsOfSizesInSQL(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
	const most = 16 << 20
	body := func(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }
	for _, call := range []string{`sqlq.send('post', 't', $1::text::json)`, `sqlq.send_many('post', 't', ARRAY['1', $1::text]::json[])`, `sqlq.publish('post.Posted', $1::text::json)`} {
		if err := do(pool, `SELECT `+call, body(most)); err != nil {
			t.Errorf("%s of %d bytes: %v", call, most, err)
		}
		err := do(pool, `SELECT `+call, body(most+1))
		if sqlStateOf(err) != "54000" || !strings.Contains(err.Error(), "16777217 bytes, the limit is 16777216") {
			t.Errorf("%s of %d bytes: %v, want 54000 and both sizes", call, most+1, err)
		}
		tx, err := pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `SET LOCAL sqlq.max_body = '17MB'`); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(t.Context(), `SELECT `+call, body(most+1)); err != nil {
			t.Errorf("%s with a raised limit: %v", call, err)
		}
		_ = tx.Rollback(t.Context())
	}
	headers := func(size int) string {
		return `{"a":"` + strings.Repeat("x", size) + `"}`
	}
	var many bytes.Buffer
	for i := range 101 {
		fmt.Fprintf(&many, `,"h%d":""`, i)
	}
	for _, call := range []string{`sqlq.send('post', 't', '1', $1::text::json)`, `sqlq.send_many('post', 't', ARRAY['1'::json], $1::text::json)`, `sqlq.publish('post.Posted', '1', $1::text::json)`} {
		for text, want := range map[string]string{headers(65535): "", headers(65536): "54000", `{` + many.String()[1:] + `}`: "54000"} {
			if err := do(pool, `SELECT `+call, text); sqlStateOf(err) != want {
				t.Errorf("%s of %d bytes: %v, want %q", call, len(text), err, want)
			}
		}
	}
	for _, sql := range []string{
		`INSERT INTO sqlq.q_post (id, type, headers, body) VALUES (sqlq.uuid_v7(), $1, $2::text::json, '1')`,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, headers, body) VALUES (now() + interval '1 day', sqlq.uuid_v7(), 'delay', 'post', $1, $2::text::json, '1')`,
		`SELECT sqlq.put_message('post', sqlq.uuid_v7(), $1, $2::text::json, '1', NULL, NULL)`,
		`SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[coalesce($2::text, '{"a":"' || repeat('x', length($1::text) * 4000) || '"}')], ARRAY['1'::bytea], NULL)`,
	} {
		long := strings.Repeat("t", 200)
		if err := do(pool, sql, long[:100], headers(6*65536)); err != nil { // as the largest that Go lets through, escaped
			t.Errorf("%s: %v", sql, err)
		}
		for _, over := range [][]any{{long + "t", nil}, {"t", headers(524288)}} {
			if err := do(pool, sql, over...); sqlStateOf(err) != "23514" {
				t.Errorf("%s: %v, want 23514", sql, err)
			}
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post WHERE octet_length(headers::text) > 524288`); n != 0 {
		t.Errorf("%d messages have more headers than they can", n)
	}
	if n := count(t, pool, `SELECT max(octet_length(body)) FROM sqlq.q_post`); n != most {
		t.Errorf("the largest body has %d bytes, want %d", n, most)
	}
}
