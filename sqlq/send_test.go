package sqlq_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// titled is a command of any type name.
type titled struct {
	Type string `json:"-"`
	N    int
}

func (m titled) MessageType() string { return m.Type }

// mute cannot be encoded.
type mute struct{ C chan int }

func (mute) MessageType() string { return "post.Mute" }

// stored is a message as a table has it, without what differs from one send to the next.
type stored struct {
	Table, Queue, Type string
	Headers            *string
	Body               string
	Attempt            int
	Lives              *int // seconds
	Waits              *int // seconds
	Why, Error         *string
}

// storedIn returns the messages of all tables, and wants what differs to be as it must.
func storedIn(t *testing.T, pool *pgxpool.Pool, queues ...string) []stored {
	t.Helper()
	var all []string
	for _, q := range queues {
		all = append(all, fmt.Sprintf(`SELECT 'queue' AS place, %s AS queue, seq, id, sent_at, expires_at, attempt, type, headers, body, NULL::timestamptz AS due_at, NULL AS why, NULL AS error FROM %s`,
			"'"+q+"'", pgx.Identifier{"sqlq", "q_" + q}.Sanitize()))
	}
	all = append(all, `SELECT 'delayed', queue, seq, id, sent_at, expires_at, attempt, type, headers, body, due_at, why, error FROM sqlq.delayed`)
	from := "(" + strings.Join(all, " UNION ALL ") + ") m"
	if n := count(t, pool, `SELECT count(*) FROM `+from+` WHERE sent_at NOT BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()
		OR substring(id::text FROM 15 FOR 1) <> '7' AND id <> $1 OR get_byte(uuid_send(id), 8) >> 6 <> 2
		OR ('x0000' || substring(encode(uuid_send(id), 'hex') FOR 12))::bit(64)::bigint NOT BETWEEN extract(epoch FROM sent_at) * 1000 - 60000 AND extract(epoch FROM sent_at) * 1000 + 1 AND id <> $1`,
		fixedID.String()); n > 0 {
		t.Errorf("%d messages have an odd sent_at, or an id that is no UUID of version 7 and this time", n)
	}
	rows, err := pool.Query(t.Context(), `SELECT place, queue, type, headers::jsonb::text, convert_from(body, 'UTF8'), attempt::int,
		round(extract(epoch FROM expires_at - sent_at))::bigint, round(extract(epoch FROM due_at - sent_at))::bigint, why, error FROM `+from+` ORDER BY 1, 2, seq`)
	if err != nil {
		t.Fatal(err)
	}
	ms, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

func (s stored) String() string {
	text, _ := json.Marshal(s)
	return string(text)
}

var fixedID = func() sqlq.ID {
	id, err := sqlq.ParseID("01890a5d-ac96-774b-bcce-b302099a8057")
	if err != nil {
		panic(err)
	}
	return id
}()

// The Go library and the SQL functions write the same rows: queue tables have one format, whoever sends.
func TestGoAndSQLWriteEqualRows(t *testing.T) {
	t.Parallel()
	awkward := `quo"te \ back / slash <&> ' é 漢 🚚` + "\b\f\n\r\t\x01\x1f\x7f\u0080\u00a0\u2028\u2029\ufeff\U0010ffff"
	cases := []struct {
		name    string
		options []sqlq.SendOption
		args    string // of the SQL function, after queue, type and body
		values  []any
	}{
		{"plain", nil, ``, nil},
		{"id", []sqlq.SendOption{sqlq.WithID(fixedID)}, `, id => $3`, []any{fixedID.String()}},
		{"headers", []sqlq.SendOption{sqlq.WithHeader("b", "2"), sqlq.WithHeader("a", "1"), sqlq.WithHeader("B-c_d.9", "")}, `, headers => $3`, []any{`{"b": "2", "B-c_d.9" :"", "a":"1"}`}},
		{"awkward headers", []sqlq.SendOption{sqlq.WithHeader("h", awkward)}, `, headers => json_build_object('h', $3::text)`, []any{awkward}},
		{"no headers", nil, `, headers => $3`, []any{`{}`}},
		{"time to live", []sqlq.SendOption{sqlq.ExpiresIn(90 * time.Minute)}, `, expires_in => $3`, []any{"90 minutes"}},
		{"no delay", []sqlq.SendOption{sqlq.Delay(0)}, `, delay => $3`, []any{"0"}},
		{"delay", []sqlq.SendOption{sqlq.Delay(time.Hour)}, `, delay => $3`, []any{"1 hour"}},
		{"all", []sqlq.SendOption{sqlq.Delay(time.Hour), sqlq.ExpiresIn(2 * time.Hour), sqlq.WithHeader("a", "1"), sqlq.WithID(fixedID)},
			`, headers => $3, delay => $4, expires_in => $5, id => $6`, []any{`{"a": "1"}`, "1 hour", "2 hours", fixedID.String()}},
		{"a century", []sqlq.SendOption{sqlq.Delay(98 * 365 * 24 * time.Hour), sqlq.ExpiresIn(99 * 365 * 24 * time.Hour)},
			`, delay => $3, expires_in => $4`, []any{fmt.Sprint(98*365, " days"), fmt.Sprint(99*365, " days")}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			client := open(t, pool, sqlq.Config{})
			execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['one', 'two', 'three']) q`)
			execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'two'), ('post.Posted', 'three')`)
			body := func(m sqlq.Message) string {
				text, err := json.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			}
			command, event := letter{N: 7, Where: `<"&">`}, posted{N: 8}
			both := func(what string, inGo func() error, inSQL string, args ...any) {
				t.Helper()
				execSQL(t, pool, `TRUNCATE sqlq.q_one, sqlq.q_two, sqlq.q_three, sqlq.delayed`)
				if err := inGo(); err != nil {
					t.Fatalf("%s in Go: %v", what, err)
				}
				fromGo := storedIn(t, pool, "one", "two", "three")
				execSQL(t, pool, `TRUNCATE sqlq.q_one, sqlq.q_two, sqlq.q_three, sqlq.delayed`)
				execSQL(t, pool, inSQL, args...)
				fromSQL := storedIn(t, pool, "one", "two", "three")
				if fmt.Sprint(fromGo) != fmt.Sprint(fromSQL) {
					t.Errorf("%s stored in Go\n%v\nand in SQL\n%v", what, fromGo, fromSQL)
				}
				if len(fromGo) == 0 {
					t.Errorf("%s stored nothing", what)
				}
			}
			within := func(f func(tx pgx.Tx) error) func() error {
				return func() error { return inTx(t, pool, f) }
			}
			to := append([]sqlq.SendOption{sqlq.To("one")}, c.options...)
			sqlSend := `SELECT sqlq.send('one', $1, $2::text::json` + c.args + `)`
			args := append([]any{"post.Letter", body(command)}, c.values...)
			both("Send", func() error { return client.Send(t.Context(), command, to...) }, sqlSend, args...)
			both("SendTx", within(func(tx pgx.Tx) error { return client.SendTx(t.Context(), tx, command, to...) }), sqlSend, args...)
			if !strings.Contains(c.args, "id =>") {
				both("SendMany", func() error { return client.SendMany(t.Context(), []sqlq.Message{command, command}, to...) },
					sqlSend+` FROM generate_series(1, 2)`, args...)
				both("send_many", func() error { return client.SendMany(t.Context(), []sqlq.Message{command, command}, to...) },
					`SELECT sqlq.send_many('one', $1, ARRAY[$2::text, $2::text]::json[]`+c.args+`)`, args...)
			}
			sqlPublish := `SELECT sqlq.publish($1, $2::text::json` + c.args + `)`
			args = append([]any{"post.Posted", body(event)}, c.values...)
			both("Publish", func() error { return client.Publish(t.Context(), event, c.options...) }, sqlPublish, args...)
			both("PublishTx", within(func(tx pgx.Tx) error { return client.PublishTx(t.Context(), tx, event, c.options...) }), sqlPublish, args...)
		})
	}
}

// A transaction is the outbox, whichever driver it is of: what is sent in it is there after its commit, with the caller's
// rows, and never after a rollback. Receivers that sleep are woken by the commit.
func TestSendTx(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `CREATE TABLE mine (n int)`)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { db.Close() })
	config := sqlq.Config{Routes: map[string]string{"post.Letter": "post"}, PollInterval: time.Hour}
	c := open(t, pool, config)
	handled := make(chan sqlq.ID, 100)
	run(t, open(t, pool, config), sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { handled <- d.ID; return nil }),
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[posted]) error { handled <- d.ID; return nil }),
	}})

	undo := errors.New("undo")
	for name, within := range map[string]func(f func(tx sqlq.DBTX, exec func(string) error) error) error{
		"pgx": func(f func(sqlq.DBTX, func(string) error) error) error {
			return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
				return f(tx, func(s string) error { _, err := tx.Exec(t.Context(), s); return err })
			})
		},
		"pgx, in a savepoint": func(f func(sqlq.DBTX, func(string) error) error) error {
			return pgx.BeginFunc(t.Context(), pool, func(outer pgx.Tx) error {
				return pgx.BeginFunc(t.Context(), outer, func(tx pgx.Tx) error {
					return f(tx, func(s string) error { _, err := tx.Exec(t.Context(), s); return err })
				})
			})
		},
		"database/sql": func(f func(sqlq.DBTX, func(string) error) error) error {
			tx, err := db.BeginTx(t.Context(), &sql.TxOptions{})
			if err != nil {
				return err
			}
			if err := f(sqlq.SQLTx(tx), func(s string) error { _, err := tx.ExecContext(t.Context(), s); return err }); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		},
		"database/sql, in what a query layer puts around it": func(f func(sqlq.DBTX, func(string) error) error) error {
			inner, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				return err
			}
			tx := struct {
				*sql.Tx
				mapper any
			}{Tx: inner}
			if err := f(sqlq.SQLTx(tx), func(s string) error { _, err := tx.ExecContext(t.Context(), s); return err }); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		},
	} {
		for _, options := range [][]sqlq.SendOption{nil, {sqlq.Delay(time.Millisecond)}, {sqlq.At(time.Now())},
			{sqlq.WithHeader("a", "b"), sqlq.ExpiresIn(time.Hour), sqlq.Delay(time.Microsecond)}} {
			for _, publish := range []bool{false, true} {
				execSQL(t, pool, `TRUNCATE mine`)
				eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_post`) // the last one is settled
				eventually(t, "receiver asleep", func() (bool, string) {
					n := asleep(t, pool, "sqlq", "post")
					return n == 1, fmt.Sprint(n)
				})
				id := sqlq.NewID()
				send := func(tx sqlq.DBTX, id sqlq.ID) error {
					o := append([]sqlq.SendOption{sqlq.WithID(id)}, options...)
					if publish {
						return c.PublishTx(t.Context(), tx, posted{N: 1}, o...)
					}
					return c.SendTx(t.Context(), tx, letter{N: 1}, o...)
				}
				err := within(func(tx sqlq.DBTX, exec func(string) error) error {
					return errors.Join(exec(`INSERT INTO mine VALUES (1)`), send(tx, sqlq.NewID()), undo)
				})
				if !errors.Is(err, undo) {
					t.Fatalf("%s: %v", name, err)
				}
				if n := count(t, pool, `SELECT (SELECT count(*) FROM mine) + (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.delayed)`); n != 0 {
					t.Errorf("%s: %d rows are left of a transaction that was rolled back", name, n)
				}
				if err := within(func(tx sqlq.DBTX, exec func(string) error) error {
					return errors.Join(exec(`INSERT INTO mine VALUES (2)`), send(tx, id))
				}); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				select {
				case got := <-handled:
					if got != id {
						t.Errorf("%s: %v was handled, %v was sent", name, got, id)
					}
				case <-time.After(patience):
					t.Fatalf("%s, %d options, publish %v: not handled", name, len(options), publish)
				}
				if n := count(t, pool, `SELECT n FROM mine`); n != 2 {
					t.Errorf("%s: the caller's own row is %d", name, n)
				}
			}
		}
	}

	// An error says what is wrong and leaves the rest to the caller, in either driver.
	for name, f := range map[string]func(tx sqlq.DBTX) error{
		"no such queue": func(tx sqlq.DBTX) error { return c.SendTx(t.Context(), tx, letter{}, sqlq.To("nowhere")) },
		"no such queue, in 1 h": func(tx sqlq.DBTX) error {
			return c.SendTx(t.Context(), tx, letter{}, sqlq.To("nowhere"), sqlq.Delay(time.Hour))
		},
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f(sqlq.SQLTx(tx)); !errors.Is(err, sqlq.ErrNoQueue) || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("%s: database/sql: %v, want ErrNoQueue", name, err)
		}
		tx.Rollback()
		if err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return f(tx) }); !errors.Is(err, sqlq.ErrNoQueue) {
			t.Errorf("%s: pgx: %v, want ErrNoQueue", name, err)
		}
	}
}

// Each kind of bad input has an error of its own, which says what to do, and stores nothing.
func TestSendRefuses(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
	c := open(t, pool, sqlq.Config{MaxBody: 1000, Routes: map[string]string{"post.Letter": "post", "post.Mute": "post", "post.Gone": "nowhere"}})
	century := 100 * 365 * 24 * time.Hour
	all := []error{sqlq.ErrNoRoute, sqlq.ErrIsEvent, sqlq.ErrNotEvent, sqlq.ErrNoQueue, sqlq.ErrInvalidName, sqlq.ErrBodyTooLarge, sqlq.ErrEncode,
		sqlq.ErrInvalidTime, sqlq.ErrInHandler, sqlq.ErrClosed}
	type o = []sqlq.SendOption
	cases := []struct {
		name    string
		message sqlq.Message
		publish bool
		options o
		want    error
		says    string
	}{
		{"unrouted command", titled{Type: "post.Stray"}, false, nil, sqlq.ErrNoRoute, "Config.Routes"},
		{"event sent", posted{}, false, nil, sqlq.ErrIsEvent, "publish it"},
		{"event sent to a queue", posted{}, false, o{sqlq.To("post")}, sqlq.ErrIsEvent, "publish it"},
		{"event published to a queue", posted{}, true, o{sqlq.To("post")}, sqlq.ErrIsEvent, "subscribers"},
		{"command published", letter{}, true, nil, sqlq.ErrNotEvent, "send it"},
		{"missing queue", letter{}, false, o{sqlq.To("nowhere")}, sqlq.ErrNoQueue, "sqlq queue create"},
		{"missing queue, by route", titled{Type: "post.Gone"}, false, nil, sqlq.ErrNoQueue, "nowhere"},
		{"missing queue, later", letter{}, false, o{sqlq.To("nowhere"), sqlq.Delay(time.Hour)}, sqlq.ErrNoQueue, "sqlq queue create"},
		{"missing queue, at", letter{}, false, o{sqlq.To("nowhere"), sqlq.At(time.Now().Add(time.Hour))}, sqlq.ErrNoQueue, "nowhere"},
		{"queue in another case", letter{}, false, o{sqlq.To("Post")}, sqlq.ErrNoQueue, "Post"},
		{"queue name", letter{}, false, o{sqlq.To("no queue")}, sqlq.ErrInvalidName, "letters"},
		{"empty queue name", letter{}, false, o{sqlq.To("")}, sqlq.ErrInvalidName, "letters"},
		{"message type", titled{Type: "no type"}, false, o{sqlq.To("post")}, sqlq.ErrInvalidName, "letters"},
		{"no message type", titled{}, false, o{sqlq.To("post")}, sqlq.ErrInvalidName, "letters"},
		{"header", letter{}, false, o{sqlq.WithHeader("no\x00header", "")}, sqlq.ErrInvalidName, "200 bytes"},
		{"header of the library's", letter{}, false, o{sqlq.WithHeader("SQLQ-crashes", "1")}, sqlq.ErrInvalidName, "sqlq-"},
		{"header value that is no text", letter{}, false, o{sqlq.WithHeader("a", "\xff")}, sqlq.ErrInvalidName, "UTF-8"},
		{"header value with NUL", letter{}, false, o{sqlq.WithHeader("a", "\x00")}, sqlq.ErrInvalidName, "NUL"},
		{"correlation id that is no text", letter{}, false, o{sqlq.WithCorrelationID("\xff")}, sqlq.ErrInvalidName, "UTF-8"},
		{"body over the limit", letter{Where: strings.Repeat("x", 1000)}, false, nil, sqlq.ErrBodyTooLarge, "MaxBody"},
		{"event over the limit", titledEvent{titled{Type: "post.Posted"}, strings.Repeat("x", 1000)}, true, nil, sqlq.ErrBodyTooLarge, "MaxBody"},
		{"not encodable", mute{make(chan int)}, false, nil, sqlq.ErrEncode, "chan"},
		{"delay before now", letter{}, false, o{sqlq.Delay(-1)}, sqlq.ErrInvalidTime, "0 to 100 years"},
		{"delay beyond a century", letter{}, false, o{sqlq.Delay(century + 1)}, sqlq.ErrInvalidTime, "0 to 100 years"},
		{"event delayed beyond a century", posted{}, true, o{sqlq.Delay(century + 1)}, sqlq.ErrInvalidTime, "0 to 100 years"},
		{"time in the past", letter{}, false, o{sqlq.At(time.Now().Add(-2 * time.Minute))}, sqlq.ErrInvalidTime, "from now"},
		{"time that was forgotten", letter{}, false, o{sqlq.At(time.Time{})}, sqlq.ErrInvalidTime, "from now"},
		{"time beyond a century", letter{}, false, o{sqlq.At(time.Now().Add(century + time.Hour))}, sqlq.ErrInvalidTime, "100 years"},
		{"both Delay and At", letter{}, false, o{sqlq.Delay(time.Hour), sqlq.At(time.Now().Add(time.Hour))}, sqlq.ErrInvalidTime, "one"},
		{"both Delay 0 and At", letter{}, false, o{sqlq.At(time.Now().Add(time.Hour)), sqlq.Delay(0)}, sqlq.ErrInvalidTime, "one"},
		{"expired before it is ready", letter{}, false, o{sqlq.Delay(time.Hour), sqlq.ExpiresIn(time.Minute)}, sqlq.ErrInvalidTime, "expire before it is ready"},
		{"expired when it is ready", posted{}, true, o{sqlq.ExpiresIn(time.Hour), sqlq.Delay(time.Hour)}, sqlq.ErrInvalidTime, "expire before it is ready"},
		{"expired before its time", letter{}, false, o{sqlq.At(time.Now().Add(time.Hour)), sqlq.ExpiresIn(time.Minute)}, sqlq.ErrInvalidTime, "expire before it is ready"},
		{"no time to live", letter{}, false, o{sqlq.ExpiresIn(0)}, sqlq.ErrInvalidTime, "more than 0"},
		{"negative time to live", letter{}, false, o{sqlq.ExpiresIn(-time.Second)}, sqlq.ErrInvalidTime, "more than 0"},
		{"time to live of ages", letter{}, false, o{sqlq.ExpiresIn(century + 1)}, sqlq.ErrInvalidTime, "100 years"},
		{"no message", nil, false, nil, nil, "nil"},
		{"no event", nil, true, nil, nil, "nil"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			verify := func(what string, err error) {
				t.Helper()
				if err == nil {
					t.Errorf("%s: no error", what)
					return
				}
				for _, known := range all {
					if is := errors.Is(err, known); is != (known == tc.want) {
						t.Errorf("%s: %v; is it %q? %v", what, err, known, is)
					}
				}
				if !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%s: %v: does not say %q", what, err, tc.says)
				}
			}
			if tc.publish {
				verify("Publish", c.Publish(t.Context(), tc.message, tc.options...))
				verify("PublishTx", inTx(t, pool, func(tx pgx.Tx) error { return c.PublishTx(t.Context(), tx, tc.message, tc.options...) }))
				return
			}
			verify("Send", c.Send(t.Context(), tc.message, tc.options...))
			verify("SendTx", inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(t.Context(), tx, tc.message, tc.options...) }))
			good := letter{N: 1}
			if tc.name == "message type" || tc.name == "no message type" || len(tc.options) == 0 { // options are every message's
				verify("SendMany", c.SendMany(t.Context(), []sqlq.Message{good, tc.message, good}, tc.options...))
			}
		})
	}
	if err := c.SendMany(t.Context(), []sqlq.Message{letter{}}, sqlq.WithID(fixedID)); err == nil {
		t.Error("SendMany gave messages the same id")
	}
	if err := c.SendMany(t.Context(), nil); err != nil {
		t.Errorf("SendMany of nothing: %v", err)
	}
	if got := storedIn(t, pool, "post"); len(got) > 0 {
		t.Errorf("stored all the same: %v", got)
	}
	// The bounds themselves are allowed.
	for _, options := range []o{{sqlq.Delay(century)}, {sqlq.ExpiresIn(century)}, {sqlq.At(time.Now().Add(century - time.Hour))}, {sqlq.ExpiresIn(1)}, {sqlq.Delay(1)},
		{sqlq.At(time.Now())}, {sqlq.WithHeader(strings.Repeat("h", 100), "")}, {sqlq.WithHeader("a", "")}} {
		if err := c.Send(t.Context(), letter{Where: strings.Repeat("x", 1000-len(`{"N":0,"Where":""}`))}, options...); err != nil {
			t.Errorf("at the limit: %v", err)
		}
	}
}

// titledEvent is an event of any type name.
type titledEvent struct {
	titled
	Pad string
}

func (titledEvent) IsEvent() {}

// pgError returns what the server said; nothing if it was not asked.
func pgError(err error) pgconn.PgError {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return *pg
	}
	return pgconn.PgError{}
}

func inTx(t *testing.T, pool *pgxpool.Pool, f func(tx pgx.Tx) error) error {
	t.Helper()
	return pgx.BeginFunc(t.Context(), pool, f)
}

// The SQL functions refuse what the Go library refuses.
func TestSQLSendRefuses(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'post')`)
	cases := []struct {
		name, sql, says string
	}{
		{"missing queue", `SELECT sqlq.send('nowhere', 't', '1')`, "nowhere"},
		{"missing queue, later", `SELECT sqlq.send('nowhere', 't', '1', delay => '1 hour')`, "nowhere"},
		{"no queue", `SELECT sqlq.send(NULL, 't', '1')`, "queue"},
		{"no type", `SELECT sqlq.send('post', NULL, '1')`, "type"},
		{"message type", `SELECT sqlq.send('post', 'no type', '1')`, "no type"},
		{"event type", `SELECT sqlq.publish('no type', '1')`, "no type"},
		{"no body", `SELECT sqlq.send('post', 't', NULL)`, "body"},
		{"no event's body", `SELECT sqlq.publish('t', NULL)`, "body"},
		{"headers that are none", `SELECT sqlq.send('post', 't', '1', '["a"]')`, "object"},
		{"headers null", `SELECT sqlq.send('post', 't', '1', 'null')`, "object"},
		{"header without a name", `SELECT sqlq.send('post', 't', '1', '{"": "c"}')`, `header ""`},
		{"header with a long name", `SELECT sqlq.send('post', 't', '1', json_build_object(repeat('é', 101), 'c'))`, "éé"},
		{"header of the library's", `SELECT sqlq.send('post', 't', '1', '{"SqlQ-crashes": "1"}')`, "SqlQ-crashes"},
		{"header value that is no string", `SELECT sqlq.send('post', 't', '1', '{"a": 1}')`, `"a"`},
		{"header value null", `SELECT sqlq.send('post', 't', '1', '{"a": null}')`, `"a"`},
		{"header value with NUL", `SELECT sqlq.send('post', 't', '1', '{"a": "\u0000"}')`, ``},
		{"header value with half a surrogate", `SELECT sqlq.send('post', 't', '1', '{"a": "\ud800"}')`, ``},
		{"delay before now", `SELECT sqlq.send('post', 't', '1', delay => '-1 microsecond')`, "hundred years"},
		{"delay beyond a century", `SELECT sqlq.send('post', 't', '1', delay => '101 years')`, "hundred years"},
		{"endless delay in days", `SELECT sqlq.send('post', 't', '1', delay => '36600 days')`, "hundred years"},
		{"no time to live", `SELECT sqlq.send('post', 't', '1', expires_in => '0')`, "hundred years"},
		{"negative time to live", `SELECT sqlq.publish('post.Posted', '1', expires_in => '-1 second')`, "hundred years"},
		{"time to live of ages", `SELECT sqlq.publish('post.Posted', '1', expires_in => '101 years')`, "hundred years"},
		{"expired before it is ready", `SELECT sqlq.send('post', 't', '1', delay => '1 hour', expires_in => '1 minute')`, "expire before it is ready"},
		{"many expired before they are ready", `SELECT sqlq.send_many('post', 't', ARRAY['1'::json], delay => '1 hour', expires_in => '1 minute')`, "expire before it is ready"},
		{"event expired when it is ready", `SELECT sqlq.publish('post.Posted', '1', delay => '24 hours', expires_in => '1 day')`, "expire before it is ready"},
		{"event beyond a century", `SELECT sqlq.publish('post.Posted', '1', delay => '101 years')`, "hundred years"},
	}
	for _, c := range cases {
		_, err := pool.Exec(t.Context(), c.sql)
		if err == nil || !strings.Contains(fmt.Sprintf("%v %+v", err, pgError(err)), c.says) {
			t.Errorf("%s: %s: %v %+v, want an error that says %q", c.name, c.sql, err, pgError(err), c.says)
		}
		if pg := pgError(err); pg.Hint == "" && c.says != "" {
			t.Errorf("%s: %s: %v: no hint what to do", c.name, c.sql, err)
		}
	}
	if got := storedIn(t, pool, "post"); len(got) > 0 {
		t.Errorf("stored all the same: %v", got)
	}
}
