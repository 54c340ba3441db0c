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

	"github.com/sqlq/sqlq/sqlq"
)

// oddNames are names that nobody expects and that are allowed all the same, as queue and as message type.
var oddNames = []string{"Sales", "sales", "SALES", "select", "1st", "9", "a.b-c_d", "null", "pg_class", "q_q_q", "queue", "delayed", "a--b", "a..b", "a__", "user",
	strings.Repeat("x", 60), strings.Repeat("x", 59) + "y", strings.Repeat("X", 60)}

// badNames are refused, as either.
var badNames = []string{"", " ", "a b", " a", "a ", "a\n", "\na", "a\nb", "a\tb", "a\x00", "\x00", "\xff", "a\xffb", "é", "漢", "🚚", "ａ", "a\u0301", "İ", "ı", "ſ", "\u212a", "\u200b",
	"-a", ".a", "_a", `a"b`, `"a"`, "a'b", `a\b`, "a;b", "a,b", "a$b", "a%b", "a@b", "a+b", "a(b)", "a[b]", "a{b}", "a*b", "a?b", "a|b", "a=b", "a<b", "a~b", "a`b", "a^b", "a#b", "a!b", "a&b",
	strings.Repeat("x", 201)}

// Names for one kind of thing only.
var (
	badQueues  = append(badNames, "a/b", "a:b", strings.Repeat("x", 61), strings.Repeat("x", 100))
	oddTypes   = append(oddNames, "sales/v2.PlaceOrder:x", strings.Repeat("x", 200), "sqlq-crashes")
	badTypes   = append(badNames, "/a", ":a")
	badHeaders = []string{"", "\x00", "a\x00", "\xff", "a\xffb", "\xed\xa0\x80", strings.Repeat("x", 201), strings.Repeat("é", 101), "sqlq-", "sqlq-crashes", "SQLQ-x", "Sqlq-X", "sQLQ-\n"}
	oddHeaders = slices.DeleteFunc(slices.Concat(oddNames, badNames, strangeHeaders, []string{strings.Repeat("x", 200), strings.Repeat("é", 100), "sqlq", "sqlq_a", "sqlqa-b", "x-sqlq-", "ſqlq-", " sqlq-"}),
		func(name string) bool { return slices.Contains(badHeaders, name) })
)

// strangeHeaders are names of headers whose JSON needs escapes, or looks like the library's bookkeeping.
var strangeHeaders = []string{"a/b", "a:b", "\n", "\x01", "\x1f\x7f", "<&>", `\`, `\u0073qlq-crashes`, `\"`, `x"sqlq-crashes`, `{"sqlq-crashes":"`, `,"sqlq-replays":"7`, `"sqlq-waited`,
	`x"sqlq-first-failed-at`, "\u2028", "\U0010ffff", "traceparent", "$.a[0]", "a=b", "}", "{}", "[", "é", "\u00e9\u0001", "İ", "K\u212a"}

// sqlAccepts says whether the database takes a name for a queue, a message type or a header; nothing stays of the
// question.
func sqlAccepts(t testing.TB, pool *pgxpool.Pool, question string, args ...any) error {
	t.Helper()
	ctx := context.Background()
	tx, err := pool.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	_, err = tx.Exec(ctx, question, args...)
	if pgError(err).Code == "" && err != nil {
		t.Fatal(err)
	}
	return err
}

const (
	acceptsQueue  = `SELECT sqlq.create_queue($1)`
	acceptsType   = `SELECT sqlq.check_message($1, '1', NULL)`
	acceptsHeader = `SELECT sqlq.check_message('t', '1', $1)`
)

// header is an object with one header. It is not written by the JSON package, which mends what is no UTF-8.
func header(name, value string) string {
	var b strings.Builder
	quote := func(s string) {
		b.WriteByte('"')
		for i := range len(s) {
			if c := s[i]; c < ' ' || c == '"' || c == '\\' {
				fmt.Fprintf(&b, `\u%04x`, c)
			} else {
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
	}
	b.WriteByte('{')
	quote(name)
	b.WriteByte(':')
	quote(value)
	b.WriteByte('}')
	return b.String()
}

// Go and SQL allow the same names.
func TestNames(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	for _, kind := range []struct {
		name     string
		odd, bad []string
		inGo     func(name string) error
		inSQL    func(name string) error
	}{
		{"queue", oddNames, badQueues, sqlq.CheckQueueName, func(n string) error { return sqlAccepts(t, pool, acceptsQueue, n) }},
		{"type", oddTypes, badTypes, sqlq.CheckTypeName, func(n string) error { return sqlAccepts(t, pool, acceptsType, n) }},
		{"header", oddHeaders, badHeaders, func(n string) error { return sqlq.CheckHeader(n, "") }, func(n string) error { return sqlAccepts(t, pool, acceptsHeader, header(n, "")) }},
	} {
		for _, name := range kind.odd {
			if err := kind.inGo(name); err != nil {
				t.Errorf("%s %q: Go: %v", kind.name, name, err)
			}
			if err := kind.inSQL(name); err != nil {
				t.Errorf("%s %q: SQL: %v", kind.name, name, err)
			}
		}
		for _, name := range kind.bad {
			if err := kind.inGo(name); !errors.Is(err, sqlq.ErrInvalidName) {
				t.Errorf("%s %q: Go: %v, want ErrInvalidName", kind.name, name, err)
			}
			if err := kind.inSQL(name); err == nil {
				t.Errorf("%s %q: SQL takes it", kind.name, name)
			}
		}
	}
}

// Queues of any allowed name work like all others: send, handle, lease, retry, fail, drop; and those that differ in case
// or in the last letter only are different ones.
func TestOddQueueNames(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{HoldLimit: 10 * time.Millisecond, ReceiveConnections: 2})
	execSQL(t, pool, `CREATE TABLE seen (endpoint text, n int)`)
	var endpoints []sqlq.Endpoint
	for _, name := range oddNames {
		endpoints = append(endpoints, sqlq.Endpoint{Name: name, UnknownWait: -1, Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
			sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[posted]) error {
				switch d.Message.N {
				case 2:
					eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased WHERE queue = $1`, d.Endpoint)
				case 3:
					return errors.New("never")
				}
				_, err := pool.Exec(ctx, `INSERT INTO seen VALUES ($1, $2)`, d.Endpoint, d.Message.N)
				return err
			}),
		}})
	}
	stop := run(t, c, endpoints...)
	eventuallyCount(t, pool, len(oddNames), `SELECT count(*) FROM sqlq.instance`)
	for n := 1; n <= 3; n++ {
		if err := c.Publish(t.Context(), posted{N: n}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Publish(t.Context(), posted{N: 4}, sqlq.Delay(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for _, name := range oddNames {
		execSQL(t, pool, `SELECT sqlq.send($1, 'post.Posted', '{"N": 5}')`, name)
		if err := c.Send(t.Context(), letter{}, sqlq.To(name)); err != nil { // nobody knows it: it fails
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), letter{}, sqlq.To(name), sqlq.Delay(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyCount(t, pool, 4*len(oddNames), `SELECT count(*) FROM seen`)
	eventuallyCount(t, pool, 3*len(oddNames), `SELECT count(*) FROM sqlq.error`)
	stop()
	for _, name := range oddNames {
		if n := count(t, pool, `SELECT count(DISTINCT n) FROM seen WHERE endpoint = $1 AND n IN (1, 2, 4, 5)`, name); n != 4 {
			t.Errorf("endpoint %q handled %d of its 4 messages", name, n)
		}
		if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE endpoint = $1 AND queue = $1
			AND (attempts = 2 AND type = 'post.Posted' OR attempts = 1 AND type = 'post.Letter')`, name); n != 3 {
			t.Errorf("endpoint %q has %d failed messages, want 3", name, n)
		}
		if n := count(t, pool, `SELECT count(*) FROM `+pgx.Identifier{"sqlq", "q_" + name}.Sanitize()); n != 0 {
			t.Errorf("queue %q has %d messages left", name, n)
		}
		if n := count(t, pool, `SELECT sqlq.drop_queue($1)`, name); n != 0 {
			t.Errorf("queue %q: %d messages dropped", name, n)
		}
	}
}

// Whatever the name, the library and the database agree on it: what one lets in the other knows.
func FuzzQueueName(f *testing.F) {
	pool := newPool(f)
	for _, name := range append(badQueues, oddNames...) {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		agree(t, name, sqlq.CheckQueueName(name), sqlAccepts(t, pool, acceptsQueue, name))
	})
}

func FuzzTypeName(f *testing.F) {
	pool := newPool(f)
	for _, name := range append(badTypes, oddTypes...) {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		agree(t, name, sqlq.CheckTypeName(name), sqlAccepts(t, pool, acceptsType, name))
	})
}

func FuzzHeader(f *testing.F) {
	pool := newPool(f)
	for _, name := range append(badHeaders, oddHeaders...) {
		f.Add(name, "")
	}
	for _, value := range append(badNames, oddNames...) {
		f.Add("a", value)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		agree(t, name+"="+value, sqlq.CheckHeader(name, value), sqlAccepts(t, pool, acceptsHeader, header(name, value)))
	})
}

func agree(t *testing.T, what string, inGo, inSQL error) {
	t.Helper()
	if (inGo == nil) != (inSQL == nil) {
		t.Errorf("%q: Go: %v, SQL: %v", what, inGo, inSQL)
	}
	if inGo != nil && !errors.Is(inGo, sqlq.ErrInvalidName) {
		t.Errorf("%q: %v is not ErrInvalidName", what, inGo)
	}
}
