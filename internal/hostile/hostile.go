// Package hostile fills a schema with one of each row that a careless or hostile writer can leave there: infinite times, bodies
// and headers that no parser accepts, names that control a terminal. No operation on other rows may fail because of them.
package hostile

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Steering is text that a terminal interprets: control characters, C1 ones included, and characters that change text direction.
const Steering = "a\x01\a\x1b[31m\x7f\u0085\u009b2J\u202e\u2066\u200f\r\n\tz"

// Queue is the queue with the hostile rows, and Good another one, with well-behaved messages only.
const (
	Queue = "hostile"
	Good  = "good"
)

// LongType is a message type of 10,000 characters.
var LongType = strings.Repeat("T", 10_000)

// GoodID is the id of the well-behaved message of each kind.
const GoodID = "0198c0de-7a00-7000-8000-000000000001"

// Times are those that Go, JSON or the subtraction of two times cannot represent.
var Times = []string{"infinity", "-infinity", "294276-12-31 23:59:59 UTC", "4700-01-01 00:00:00 UTC BC", "10000-01-01 00:00:00 UTC"}

// Bodies and Headers are texts, one of each kind.
var (
	Bodies = map[string]string{
		"deep":                strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000),
		"as deep as possible": strings.Repeat(`{"a":[`, 2_400) + "1" + strings.Repeat("]}", 2_400),
		"deep and wide":       strings.Repeat("[", 9_000) + strings.Repeat("1,", 2_000) + "1" + strings.Repeat("]", 9_000),
		"huge":                `{"a":"` + strings.Repeat("x", 256<<10) + `"}`,
		"wide":                `[` + strings.Repeat("1,", 10_000) + `1]`,
		"no text":             "\xff\xfe\x00\x80",
		"empty":               "",
		"NUL":                 `{"a":"\u0000"}`,
		"lone surrogate":      `{"a":"\ud800"}`,
		"escaped emoji":       `{"x":"\ud83d\ude00","url":"https:\/\/x"}`,
		"raw controls":        "{\"\u009b31m\u202e\x7f\":\"\u009b2J\u2066\u0085\"}",
		"same name":           `{"a":1,"a":2}`,
		"number":              `1e999999`,
		"words of YAML":       `{"no":"yes","<<":{"a":"1:30"}}`,
	}
	Headers = map[string]string{
		"list":           `["a"]`,
		"text":           `"a"`,
		"null":           `null`,
		"nested":         `{"tenant":{"a":[1]}}`,
		"numbers":        `{"tenant":1e999}`,
		"same name":      `{"tenant":"a","tenant":"b"}`,
		"NUL":            `{"tenant":"\u0000"}`,
		"NUL name":       `{"\u0000":"x"}`,
		"lone surrogate": `{"tenant":"\ud800"}`,
		"raw controls":   "{\"\u009b31m\u202e\x7f\":\"\u009b2J\u2066\u0085\"}",
		"controls":       `{"a\u001b\n":"\u001b[2J\r\n"}`,
		"deep":           `{"tenant":` + strings.Repeat("[", 2_000) + strings.Repeat("]", 2_000) + `}`,
		"forged": `{"sqlq-replays":"99999999999","sqlq-first-failed-at":"0000-01-01T00:00:00Z","sqlq-crashes":"x","sqlq-content-type":"\u001b",
			"sqlq-correlation-id":"` + strings.Repeat("c", 5_000) + `"}`,
	}
)

// Fill creates the queues and the rows, in the schema sqlq. It first drops the checks that would refuse such rows: rows may be
// older than the checks.
func Fill(t testing.TB, url string) {
	t.Helper()
	ctx := context.Background()
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := db.Exec(ctx, sql, args...); err != nil {
			t.Fatalf("%.200s: %v", sql, err)
		}
	}
	for _, queue := range []string{Good, Queue} {
		exec(`SELECT sqlq.create_queue($1)`, queue)
	}
	exec(`SET search_path = sqlq`)
	exec(`SET session_replication_role = replica`) // no triggers, no foreign keys
	exec(`DO $$ DECLARE c record; BEGIN
		FOR c IN SELECT conrelid::regclass AS tab, conname FROM pg_constraint
			WHERE connamespace = 'sqlq'::regnamespace AND contype = 'c' AND pg_get_constraintdef(oid) !~ '= ANY' LOOP
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.tab, c.conname);
		END LOOP; END $$`)
	r := rows{exec}
	r.message(Good, GoodID, "sales.PlaceOrder", `{"tenant":"north"}`, []byte(`{"order":17}`), "plain", "now()")
	for _, at := range Times {
		r.message(Queue, "", "T", "", []byte(`{}`), "plain", fmt.Sprintf("%s::timestamptz", quoted(at)))
		r.around(fmt.Sprintf("%s::timestamptz", quoted(at)), "plain "+at)
	}
	for name, body := range Bodies {
		r.message(Queue, "", "T", "", []byte(body), name, "now()")
	}
	for name, headers := range Headers {
		r.message(Queue, "", "T", headers, []byte(`{}`), name, "now()")
	}
	r.message(Queue, "", LongType, "", []byte(`{}`), "long", "now()")
	r.message(Queue, "", Steering, "", []byte(Steering), Steering, "now()")
	r.message(Steering, "", "T", "", []byte(`{}`), "its queue does not exist", "now()")
	r.around("now()", Steering)
	exec(`UPDATE queue SET paused_at = '-infinity', paused_by = $2 WHERE name = $1`, Queue, Steering)
	exec(`UPDATE inbox SET rotated_at = '-infinity' WHERE name = 'minutes'`)
	exec(`INSERT INTO inbox_minutes_a (at, id, queue) VALUES ('-infinity', gen_random_uuid(), $1), ('infinity', gen_random_uuid(), $1)`, Steering)
	exec(`INSERT INTO traffic (queue, at, arrived, before_at, before) VALUES ($1, 'infinity', 9223372036854775807, '-infinity', -9223372036854775808)`, Queue)
}

type rows struct {
	exec func(sql string, args ...any)
}

// message puts a message in each place where there can be one. text is used for its other texts, and at is an SQL expression for
// each of its times.
func (r rows) message(queue, id, messageType, headers string, body []byte, text, at string) {
	of := `coalesce(nullif($1::text, '')::uuid, gen_random_uuid()), $2::text, nullif($3::text, '')::json, $4::bytea`
	args := []any{id, messageType, headers, body}
	if queue == Good || queue == Queue {
		r.exec(fmt.Sprintf(`INSERT INTO q_%s (id, type, headers, body, sent_at, expires_at) SELECT %s, %s, %s`, queue, of, at, expiry(at)), args...)
	}
	r.exec(fmt.Sprintf(`INSERT INTO delayed (id, type, headers, body, due_at, sent_at, expires_at, why, queue, error) SELECT %s, %s, %s, %s, 'retry', $5, $6`,
		of, strings.Replace(at, "now()", "now() + interval '1 hour'", 1), at, expiry(at)), append(args, queue, text)...)
	r.exec(fmt.Sprintf(`INSERT INTO leased (id, type, headers, body, leased_at, sent_at, expires_at, instance, queue, seq, attempt) SELECT %s, %s, %[2]s, %[3]s, 999, $5, 1, 32767`,
		of, at, expiry(at)), append(args, queue)...)
	r.exec(fmt.Sprintf(`INSERT INTO error (id, type, headers, body, sent_at, expires_at, first_failed_at, failed_at, archived_at, status, queue, endpoint, host, attempts, replays,
			error_type, message, chain, stack, fingerprint)
		SELECT %s, %s, %[3]s, %[2]s, %[2]s, s.archived_at, s.status, $5, $6, $6, 1, 0, $6, $6, ARRAY[$6, 'e'], $6, left($6, 20)
		FROM (VALUES ('failed', NULL), ('archived', %[2]s)) s (status, archived_at) WHERE s.status = 'failed' OR $5 = '%[4]s'`, of, at, expiry(at), Queue), append(args, queue, text)...)
	r.exec(fmt.Sprintf(`INSERT INTO history (message, what, headers, body, at, failed_at, queue, operation, attempts, host, error)
		SELECT e.id, w.what, e.headers, e.body, %[1]s, %[1]s, e.queue, 1, e.attempts, e.host, e.message
		FROM (SELECT * FROM error ORDER BY seq DESC LIMIT 1) e, (VALUES ('edit'), ('replay')) w (what)`, at))
}

// expiry is an SQL expression: when a message with unusual times expires; null if its times are normal.
func expiry(at string) string {
	if at == "now()" {
		return "NULL::timestamptz"
	}
	return at
}

// around puts rows into the tables other than those of messages.
func (r rows) around(at, text string) {
	r.exec(fmt.Sprintf(`INSERT INTO operation (kind, status, filter, queue, db_role, os_user, host, reason, began_at, updated_at, ended_at, after_at, error)
		SELECT left($1, 30), s, json_build_object('queue', $1::text, 'error', $1::text), $1, $1, $1, $1, $1, %[1]s, %[1]s, %[1]s, %[1]s, $1
		FROM unnest(ARRAY['running', 'interrupted', 'done', 'cancelled']) s`, at), text)
	r.exec(fmt.Sprintf(`INSERT INTO instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, started_at, heartbeat_at, drained_at, crashed_at, rate, slowest)
		SELECT e, $1, -1, $1, 0, false, l::interval, %[1]s, %[1]s, d, c, r::real, i::interval
		FROM unnest(ARRAY['%[2]s', $1]) e,
			(VALUES ('30 s', NULL::timestamptz, NULL::timestamptz, 'NaN', '178000000 years'), ('178000000 years', %[1]s, NULL, 'Infinity', '-178000000 years'),
				('-1 year', NULL, %[1]s, '-Infinity', NULL)) v (l, d, c, r, i)`, at, Queue), text)
	r.exec(fmt.Sprintf(`INSERT INTO subscription (type, queue, created_at) VALUES ($1, '%s', %s)`, Queue, at), text)
	r.exec(fmt.Sprintf(`INSERT INTO subscription (type, queue, created_at) VALUES ($1, $2, %s)`, at), "sub "+text, text)
}

func quoted(text string) string { return "'" + text + "'" }
