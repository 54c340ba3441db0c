package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// failedRow is what the error table keeps.
type failedRow struct {
	ID, Status, Queue, Endpoint, Host, Type string
	Headers                                 *string
	Body                                    []byte
	Attempts, Replays                       int
	SentAt                                  time.Time
	ExpiresAt                               *time.Time
	FirstFailedAt, FailedAt                 time.Time
	ArchivedAt                              *time.Time
	ErrorType, Message                      string
	Chain                                   []string
	Stack                                   *string
	Fingerprint                             string
}

func failedRows(t testing.TB, pool *pgxpool.Pool) []failedRow {
	t.Helper()
	rows, err := pool.Query(context.Background(), `SELECT id::text, status, queue, endpoint, host, type, headers::text, body, attempts, replays, sent_at, expires_at,
		first_failed_at, failed_at, archived_at, error_type, message, chain, stack, fingerprint FROM sqlq.error ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[failedRow])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// outOfStock is an error with an identity of its own.
type outOfStock struct{ Item int }

func (e *outOfStock) Error() string { return fmt.Sprintf("item %d is out of stock", e.Item) }

// A failed message keeps all that an operator needs: what it was, where and how often it was handled, and what became
// of it, in full.
func TestFailedMessageKeepsEverything(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, inTx := range []bool{false, true} {
		t.Run(fmt.Sprint("in a transaction ", inTx), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			c := open(t, pool, sqlq.Config{})
			fault := func(d *sqlq.Incoming, m letter) error {
				switch m.Where {
				case "wrapped":
					return fmt.Errorf("place order: %w", fmt.Errorf("reserve: %w", &outOfStock{m.N}))
				case "joined":
					return errors.Join(fmt.Errorf("first: %w", &outOfStock{m.N}), errors.New("second"))
				case "unrecoverable":
					return fmt.Errorf("place order: %w", sqlq.Unrecoverable(&outOfStock{m.N}))
				case "panic":
					panic("no item " + fmt.Sprint(m.N))
				case "panic with error":
					panic(fmt.Errorf("handle: %w", &outOfStock{m.N}))
				case "nil pointer":
					var none *letter
					return errors.New(none.Where)
				case "odd text":
					return errors.New("not \xff UTF-8, \x00 and " + strings.Repeat("long ", 10_000))
				}
				return nil
			}
			handler := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return fault(d.Incoming, d.Message) })
			if inTx {
				handler = sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error { return fault(d.Incoming, d.Message) })
			}
			e := sqlq.Endpoint{Name: "post", Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{50 * time.Millisecond}, Jitter: -1}, Handlers: []sqlq.Handler{handler}}
			if err := c.Prepare(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			run(t, c, e)
			fails := func(m letter, options ...sqlq.SendOption) failedRow {
				t.Helper()
				execSQL(t, pool, `DELETE FROM sqlq.error`)
				if err := c.Send(t.Context(), m, options...); err != nil {
					t.Fatal(err)
				}
				eventually(t, m.Where+": failed", func() (bool, string) {
					where := fmt.Sprintf("%d ready, %d delayed, %d leased", count(t, pool, `SELECT count(*) FROM sqlq.q_post`),
						count(t, pool, `SELECT count(*) FROM sqlq.delayed`), count(t, pool, `SELECT count(*) FROM sqlq.leased`))
					return count(t, pool, `SELECT count(*) FROM sqlq.error`) == 1, where
				})
				return failedRows(t, pool)[0]
			}

			began := time.Now()
			f := fails(letter{17, "wrapped"}, sqlq.WithID(fixedID), sqlq.WithHeader("tenant", "north"), sqlq.WithCorrelationID("order 17"), sqlq.ExpiresIn(time.Hour))
			if f.ID != fixedID.String() || f.Status != "failed" || f.Queue != "post" || f.Endpoint != "post" || f.Host != host || f.Type != "post.Letter" {
				t.Errorf("%+v", f)
			}
			if string(f.Body) != `{"N":17,"Where":"wrapped"}` || f.Headers == nil || !sameJSON(*f.Headers, `{"sqlq-correlation-id": "order 17", "tenant": "north"}`) {
				t.Errorf("body %s, headers %v", f.Body, *f.Headers)
			}
			if f.Attempts != 4 || f.Replays != 0 || f.ArchivedAt != nil {
				t.Errorf("%d attempts, %d replays, archived at %v", f.Attempts, f.Replays, f.ArchivedAt)
			}
			if f.SentAt.Before(began.Add(-time.Second)) || f.FirstFailedAt.Before(f.SentAt) || f.FailedAt.Sub(f.FirstFailedAt) < 45*time.Millisecond || f.FailedAt.After(time.Now().Add(time.Second)) {
				t.Errorf("sent at %v, first failed at %v, failed at %v: want 50 ms between the rounds", f.SentAt, f.FirstFailedAt, f.FailedAt)
			}
			if f.ExpiresAt == nil || f.ExpiresAt.Sub(f.SentAt).Round(time.Second) != time.Hour {
				t.Errorf("sent at %v, expires at %v", f.SentAt, f.ExpiresAt)
			}
			if f.ErrorType != "sqlq_test.outOfStock" || f.Message != "place order: reserve: item 17 is out of stock" || f.Stack != nil {
				t.Errorf("error type %s, message %s, stack %v", f.ErrorType, f.Message, f.Stack)
			}
			if want := []string{"fmt.wrapError: place order: reserve: item 17 is out of stock", "fmt.wrapError: reserve: item 17 is out of stock", "sqlq_test.outOfStock: item 17 is out of stock"}; !slices.Equal(f.Chain, want) {
				t.Errorf("chain %q, want %q", f.Chain, want)
			}

			// The same fault with other numbers is in the same group, another one is not.
			for m, same := range map[letter]bool{{N: 18, Where: "wrapped"}: true, {N: 17, Where: "unrecoverable"}: false, {N: 17, Where: "panic"}: false, {N: 17, Where: "panic with error"}: false} {
				other := fails(m)
				if (other.Fingerprint == f.Fingerprint) != same {
					t.Errorf("%+v has fingerprint %s, %q has %s", m, other.Fingerprint, f.Message, f.Fingerprint)
				}
				if m.Where == "unrecoverable" && other.Attempts != 1 {
					t.Errorf("an unrecoverable error was tried %d times", other.Attempts)
				}
			}

			if f := fails(letter{1, "joined"}); f.ErrorType != "errors.errorString" || len(f.Chain) != 4 || f.Message != "first: item 1 is out of stock\nsecond" || f.Headers != nil {
				t.Errorf("joined: %+v", f)
			}
			p := fails(letter{N: 7, Where: "panic"})
			if p.ErrorType != "panic" || p.Message != "panic: no item 7" || p.Stack == nil || !strings.Contains(*p.Stack, "failed_test.go") {
				t.Errorf("panic: %+v", p)
			}
			if again := fails(letter{N: 8, Where: "panic"}); again.Fingerprint != p.Fingerprint {
				t.Errorf("two fingerprints for one panic")
			}
			if p := fails(letter{N: 7, Where: "panic with error"}); p.ErrorType != "sqlq_test.outOfStock" || p.Message != "panic: handle: item 7 is out of stock" || p.Stack == nil || len(p.Chain) != 3 {
				t.Errorf("panic with error: %+v", p)
			}
			if p := fails(letter{Where: "nil pointer"}); !strings.Contains(p.Message, "nil pointer") || p.Stack == nil || !strings.Contains(*p.Stack, "failed_test.go") {
				t.Errorf("nil pointer: %+v", p)
			}
			if f := fails(letter{Where: "odd text"}); !strings.HasPrefix(f.Message, "not \uFFFD UTF-8,  and long long") || len(f.Message) > 10_000 || len(f.Chain) != 1 || len(f.Chain[0]) > 10_000 {
				t.Errorf("odd text: %d bytes, %.100s", len(f.Message), f.Message)
			}
		})
	}
}

func sameJSON(a, b string) bool {
	clean := func(s string) string { return strings.NewReplacer(`": "`, `":"`, `", "`, `","`).Replace(s) }
	return clean(a) == clean(b)
}

// strange are messages that no handler can make sense of: the headers and the body, as they were written, and the error.
var strange = []struct {
	name, messageType, headers, body string
	want                             error
}{
	{"no JSON", "post.Letter", ``, `{"N": `, sqlq.ErrUndecodable},
	{"empty", "post.Letter", ``, ``, sqlq.ErrUndecodable},
	{"bytes", "post.Letter", ``, "\x00\xff\xfe", sqlq.ErrUndecodable},
	{"another shape", "post.Letter", ``, `{"N": "seven"}`, sqlq.ErrUndecodable},
	{"more than one", "post.Letter", ``, `{"N": 1} {"N": 2}`, sqlq.ErrUndecodable},
	{"another content type", "post.Letter", `{"sqlq-content-type":"application/protobuf"}`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: a list", "post.Letter", `["a"]`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: a list of bookkeeping", "post.Letter", `["sqlq-replays", "sqlq-crashes"]`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: a string", "post.Letter", `"sqlq-replays"`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: a number", "post.Letter", `17`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: no strings", "post.Letter", `{ "a" : 1,  "b":{"c":null}}`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: NUL", "post.Strange", `{"a":"\u0000"}`, `{"N": 1}`, sqlq.ErrUnknownType},
	{"headers: half a surrogate", "post.Strange", `{"a":"\ud83d","b":"\udc00\ud800"}`, `{"N": 1}`, sqlq.ErrUnknownType},
	{"headers: NUL, and undecodable", "post.Letter", `{"a":"\u0000", "b": 1}`, `{"N": 1}`, sqlq.ErrUndecodable},
	{"headers: twice the same", "post.Strange", `{"a": "1", "a": "2"}`, `{"N": 1}`, sqlq.ErrUnknownType},
	{"headers: null", "post.Strange", `null`, `{"N": 1}`, sqlq.ErrUnknownType},
	{"headers: empty", "post.Strange", `{  }`, `{"N": 1}`, sqlq.ErrUnknownType},
	{"unknown type", "post.Strange", `{"a": "b"}`, `whatever`, sqlq.ErrUnknownType},
	{"type that nobody may send", "no type\n\t\"'é", ``, `{"N": 1}`, sqlq.ErrUnknownType},
	{"no type", "", ``, `{"N": 1}`, sqlq.ErrUnknownType},
}

// A message that cannot be understood goes to the error table at once and unchanged; others, before and behind it and in
// the same batch, are handled.
func TestStrangeMessages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		inTx    bool
		byLease bool
	}{{"Handle", false, false}, {"HandleTx", true, false}, {"Handle, by lease", false, true}, {"HandleTx, by lease", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			client := open(t, pool, sqlq.Config{})
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			if c.byLease {
				crashLately(t, pool, "post")
			}
			execSQL(t, pool, `CREATE TABLE handled (n int)`)
			insertStrange(t, pool, `INSERT INTO sqlq.q_post (id, type, headers, body) VALUES (sqlq.uuid_v7(), $1, $2, $3)`, func(i int) {
				execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', json_build_object('N', $1::int))`, i)
			})
			handler := sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
				_, err := pool.Exec(ctx, `INSERT INTO handled VALUES ($1)`, d.Message.N)
				return err
			})
			if c.inTx {
				handler = sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[letter]) error {
					_, err := tx.Exec(ctx, `INSERT INTO handled VALUES ($1)`, d.Message.N)
					return err
				})
			}
			run(t, client, sqlq.Endpoint{Name: "post", UnknownWait: -1, Handlers: []sqlq.Handler{handler}})
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`)
			if n := count(t, pool, `SELECT count(DISTINCT n) FROM handled`); n != len(strange) || count(t, pool, `SELECT count(*) FROM handled`) != n {
				t.Errorf("%d of the others were handled, want %d, once", n, len(strange))
			}
			wantStrange(t, pool)
		})
	}
}

// insertStrange inserts the strange messages, each after a call of between.
func insertStrange(t *testing.T, pool *pgxpool.Pool, sql string, between func(i int)) {
	t.Helper()
	for i, s := range strange {
		between(i)
		var headers *string
		if s.headers != "" {
			headers = &s.headers
		}
		execSQL(t, pool, sql, s.messageType, headers, []byte(s.body))
	}
}

// wantStrange wants the strange messages in the error table.
func wantStrange(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	got := failedRows(t, pool)
	for _, s := range strange {
		i := slices.IndexFunc(got, func(f failedRow) bool {
			same := f.Headers == nil && s.headers == "" || f.Headers != nil && *f.Headers == s.headers
			return same && f.Type == s.messageType && string(f.Body) == s.body
		})
		if i < 0 {
			t.Errorf("%s: not in the error table, or changed", s.name)
			continue
		}
		f := got[i]
		got = slices.Delete(got, i, i+1)
		if f.Attempts != 1 || !strings.Contains(strings.Join(f.Chain, "\n"), s.want.Error()) || !strings.Contains(f.Message, s.want.Error()) {
			t.Errorf("%s: %d attempts, %s, %q; want 1 and %v", s.name, f.Attempts, f.Message, f.Chain, s.want)
		}
	}
	for _, f := range got {
		t.Errorf("in the error table too: %+v, %s", f, f.Body)
	}
}

// Handlers can fail messages whose headers PostgreSQL cannot look into; they are tried again and end in the error table
// like all others.
func TestRetriesOfStrangeHeaders(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	all := []string{`{"a":"\u0000"}`, `{"a":"\ud83d"}`, `null`, `{}`, `{ "a" : "b" }`, `{"a": "1", "a": "2"}`, `{"sqlq-replays":"many"}`, `{"sqlq-first-failed-at":"once"}`, `{"sqlq-crashes":"x"}`,
		`{"sqlq-replays":"3","sqlq-first-failed-at":"2001-02-03T04:05:06.789Z"}`}
	for i, headers := range all {
		execSQL(t, pool, `INSERT INTO sqlq.q_post (id, sent_at, type, headers, body) VALUES (sqlq.uuid_v7(), now() - interval '1 s', 'post.Letter', $1, convert_to(json_build_object('N', $2::int)::text, 'UTF8'))`, headers, i)
	}
	run(t, c, sqlq.Endpoint{Name: "post", Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond, time.Millisecond}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return errors.New("never") }),
	}})
	eventuallyCount(t, pool, len(all), `SELECT count(*) FROM sqlq.error WHERE attempts = 3 AND message = 'never'`)
	for _, f := range failedRows(t, pool) {
		if f.Headers != nil && strings.Contains(*f.Headers, "sqlq-") {
			t.Errorf("bookkeeping is left in the headers %s", *f.Headers)
		}
		if f.Replays == 3 != (f.FirstFailedAt.Year() == 2001) {
			t.Errorf("%d replays, first failed at %v", f.Replays, f.FirstFailedAt)
		}
	}
}

// Strange messages that were in the hands of a process that died go back to their queue, and from there to the error
// table; one of them must not keep the others.
func TestStrangeMessagesOfACrash(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `CREATE TABLE handled (n int)`)
	crashLately(t, pool, "post")
	const lease = `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, headers, body)
		SELECT max(id), 'post', 1, sqlq.uuid_v7(), now(), 0, $1, $2, $3 FROM sqlq.instance`
	insertStrange(t, pool, lease, func(i int) { execSQL(t, pool, lease, "post.Letter", nil, []byte(fmt.Sprintf(`{"N": %d}`, i))) })
	run(t, c, sqlq.Endpoint{Name: "post", UnknownWait: -1, Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
			_, err := pool.Exec(ctx, `INSERT INTO handled VALUES ($1)`, d.Message.N)
			return err
		}),
	}})
	eventuallyCount(t, pool, len(strange), `SELECT count(*) FROM sqlq.error`)
	eventuallyCount(t, pool, len(strange), `SELECT count(DISTINCT n) FROM handled`)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`)
	bodies := map[string]int{}
	for _, f := range failedRows(t, pool) {
		bodies[f.Type+" "+string(f.Body)]++
		if f.Headers != nil && strings.Contains(*f.Headers, `"sqlq-crashes":"`) && !strings.Contains(f.Message, sqlq.ErrUndecodable.Error()) {
			t.Errorf("bookkeeping is left in the headers %s: %s", *f.Headers, f.Message)
		}
	}
	for _, s := range strange {
		if bodies[s.messageType+" "+s.body]--; bodies[s.messageType+" "+s.body] < 0 {
			t.Errorf("%s: not in the error table", s.name)
		}
	}
}
