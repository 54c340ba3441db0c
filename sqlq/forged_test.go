package sqlq_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// header rows of docs/wire.md: name, and whether a producer may write it.
var headerRow = regexp.MustCompile("(?m)^\\| `(sqlq-[a-z-]+)` \\|.*\\| (yes|no) \\|$")

// wireHeaders returns the library's own headers, those that are reserved too, and whether a producer may write each.
func wireHeaders(t *testing.T) (names []string, writable map[string]bool) {
	t.Helper()
	text, err := os.ReadFile("../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	writable = map[string]bool{}
	for _, row := range headerRow.FindAllStringSubmatch(string(text), -1) {
		names, writable[row[1]] = append(names, row[1]), row[2] == "yes"
	}
	for _, name := range sqlq.OwnHeaders {
		if _, there := writable[name]; !there {
			t.Errorf("docs/wire.md lacks %s", name)
		}
	}
	return names, writable
}

// A producer writes every header of the library's by hand, those too that are only reserved, in every way that SQL and Go give
// it. It is refused, or nothing comes of it in attempts, replays, crash handling and order.
func TestForgedHeadersChangeNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := twoQueues(t, url)
	producer := granted(t, url, "producer", "mine")
	names, writable := wireHeaders(t)
	values := map[string]string{"sqlq-content-type": "application/json", "sqlq-waited": "9h", "sqlq-first-failed-at": "2001-01-01T00:00:00Z", "sqlq-reply-by": "2001-01-01T00:00:00Z",
		"sqlq-scheduled-for": "2999-01-01T00:00:00Z", "sqlq-reply-to": "q:theirs", "sqlq-content-encoding": "gzip"}
	var began time.Time
	if err := admin.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&began); err != nil {
		t.Fatal(err)
	}
	// Each stores message n with headers; those of the first kind at once, and so in their order.
	inOrder := map[string]func(n int, headers string) error{
		"insert": func(n int, headers string) error {
			return do(producer, `INSERT INTO sqlq.q_mine (id, type, headers, body) VALUES (sqlq.uuid_v7(), 'post.Letter', $1::text::json, convert_to($2, 'UTF8'))`, headers, fmt.Sprintf(`{"N":%d}`, n))
		},
		// So late in a transaction that the message might pass for one that was sent before.
		"late insert": func(n int, headers string) error {
			return inTx(t, producer, func(tx pgx.Tx) error {
				for _, sql := range []string{`SELECT 1`, `SELECT 2`} {
					if _, err := tx.Exec(t.Context(), sql); err != nil {
						return err
					}
				}
				_, err := tx.Exec(t.Context(), fmt.Sprintf(`INSERT INTO sqlq.q_mine (id, type, headers, body) SELECT sqlq.uuid_v7(), 'post.Letter', '%s', '{"N":%d}' FROM pg_sleep(0.01)`, headers, n))
				return err
			})
		},
		"copy": func(n int, headers string) error {
			_, err := copyText(t, producer, `COPY sqlq.q_mine (id, type, headers, body) FROM STDIN`, fmt.Sprintf("%s\tpost.Letter\t%s\t{\"N\":%d}\n", sqlq.NewID(), headers, n))
			return err
		},
		"put_message": func(n int, headers string) error {
			return do(producer, `SELECT sqlq.put_message('mine', sqlq.uuid_v7(), 'post.Letter', $1::text::json, convert_to($2, 'UTF8'), NULL, NULL)`, headers, fmt.Sprintf(`{"N":%d}`, n))
		},
		"publish_batch": func(n int, headers string) error {
			return do(producer, `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[$1::text], ARRAY[convert_to($2, 'UTF8')], NULL)`, headers, fmt.Sprintf(`{"N":%d}`, n))
		},
	}
	later := map[string]func(n int, headers string) error{
		"insert delayed": func(n int, headers string) error {
			return do(producer, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, headers, body) VALUES (now(), sqlq.uuid_v7(), 'delay', 'mine', 'post.Letter', $1::text::json, convert_to($2, 'UTF8'))`, headers, fmt.Sprintf(`{"N":%d}`, n))
		},
		"publish_batch for later": func(n int, headers string) error {
			return do(producer, `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[$1::text], ARRAY[convert_to($2, 'UTF8')], NULL, due_at => ARRAY[now()])`, headers, fmt.Sprintf(`{"N":%d}`, n))
		},
	}
	n, sent, undecodable, delayed := 0, 0, 0, map[int]bool{}
	for _, name := range names {
		encoded, _ := json.Marshal(map[string]string{name: cmp.Or(values[name], "9"), "forged": "yes"})
		for _, ways := range []map[string]func(int, string) error{inOrder, later} {
			for way, store := range ways {
				n++
				switch err := store(n, string(encoded)); {
				case writable[name] && err != nil:
					t.Errorf("%s of %s: %v", way, encoded, err)
				case !writable[name] && sqlStateOf(err) != "23514":
					t.Errorf("%s of %s: %v, want that the table refuses it (23514)", way, encoded, err)
				case err == nil && (name == "sqlq-content-encoding" || name == "sqlq-content-claim"):
					undecodable++
				case err == nil:
					sent++
				}
				_, isLater := later[way]
				delayed[n], delayed[n+1] = isLater, isLater
				n++ // one that succeeds, so that the type is not slowed because all of it fails
				if err := store(n, `{}`); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, sql := range []string{"send('mine', 'post.Letter', '{}', $1::text::json)", "send_many('mine', 'post.Letter', ARRAY['{}'::json], $1::text::json)", "publish('post.Posted', '{}', $1::text::json)"} {
			if err := do(producer, `SELECT sqlq.`+sql, string(encoded)); sqlStateOf(err) != "22023" {
				t.Errorf("%s of %s: %v, want that it is refused", sql, encoded, err)
			}
		}
		refusedByGo(t, producer, name)
		refusedByGo(t, producer, strings.ToUpper(name))
	}
	refused(t, producer,
		`INSERT INTO sqlq.q_mine (seq, id, type, body) OVERRIDING SYSTEM VALUE VALUES (-1, sqlq.uuid_v7(), 't', '')`,
		`INSERT INTO sqlq.q_mine (id, sent_at, type, body) VALUES (sqlq.uuid_v7(), '2001-01-01', 't', '')`)
	if _, err := copyText(t, producer, `COPY sqlq.q_mine (seq, id, type, body) FROM STDIN`, fmt.Sprintf("-1\t%s\tt\t\n", sqlq.NewID())); sqlStateOf(err) != "42501" {
		t.Errorf("COPY of a place in the order: %v", err)
	}

	var mu sync.Mutex
	var order []int
	handle := func(in *sqlq.Incoming, number int) error {
		mu.Lock()
		defer mu.Unlock()
		if in.Attempt == 1 {
			order = append(order, number)
		}
		if in.Headers["forged"] != "" {
			return errors.New("never")
		}
		return nil
	}
	c := open(t, admin, sqlq.Config{ReceiveConnections: 1, HoldLimit: 5 * time.Second}) // nothing is leased because the machine is slow
	stop := run(t, c, sqlq.Endpoint{Name: "mine", Concurrency: 1, Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return handle(d.Incoming, d.Message.N) }),
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[posted]) error { return handle(d.Incoming, d.Message.N) })}})
	eventuallyCount(t, admin, 0, `SELECT (SELECT count(*) FROM sqlq.q_mine) + (SELECT count(*) FROM sqlq.delayed WHERE queue = 'mine')`)
	var s sqlq.EndpointStats
	eventually(t, "failures are counted", func() (bool, string) {
		s = statsOf(c)
		return int(s.Failed) == sent+undecodable, fmt.Sprintf("%+v, want %d failed", s, sent+undecodable)
	})
	stop()
	if got := count(t, admin, `SELECT count(*) FROM sqlq.error WHERE queue = 'mine' AND attempts = 2 AND replays = 0 AND first_failed_at >= $1 AND message = 'never'`, began); got != sent {
		t.Errorf("%d failed at their second attempt, never replayed and not before they were sent; want %d", got, sent)
	}
	if got := count(t, admin, `SELECT count(*) FROM sqlq.error WHERE queue = 'mine' AND attempts = 1 AND replays = 0 AND message LIKE '%says how its body is to be read%'`); got != undecodable {
		t.Errorf("%d were not readable, want %d", got, undecodable)
	}
	if s.Leased != 0 || s.Duplicates != 0 || s.Expired != 0 {
		t.Errorf("%+v, want none by lease", s)
	}
	if got := slices.DeleteFunc(order, func(number int) bool { return delayed[number] }); !slices.IsSorted(got) {
		t.Errorf("handled in the order %v", got)
	}
}

// refusedByGo checks that no way of the library's takes a header from its caller, nor from middleware.
func refusedByGo(t *testing.T, pool *pgxpool.Pool, name string) {
	t.Helper()
	plain := open(t, pool, sqlq.Config{})
	adding := open(t, pool, sqlq.Config{SendMiddleware: []func(sqlq.SendFunc) sqlq.SendFunc{func(next sqlq.SendFunc) sqlq.SendFunc {
		return func(ctx context.Context, m *sqlq.Outgoing) error {
			m.Headers[name] = "1"
			return next(ctx, m)
		}
	}}})
	by, to := sqlq.WithHeader(name, "1"), sqlq.To("mine")
	for way, err := range map[string]error{
		"Send":                     plain.Send(t.Context(), letter{}, to, by),
		"SendMany":                 plain.SendMany(t.Context(), []sqlq.Message{letter{}, letter{}}, to, by),
		"SendTx":                   inTx(t, pool, func(tx pgx.Tx) error { return plain.SendTx(t.Context(), tx, letter{}, to, by) }),
		"Publish":                  plain.Publish(t.Context(), posted{}, by),
		"Send, by middleware":      adding.Send(t.Context(), letter{}, to),
		"SendMany, by middleware":  adding.SendMany(t.Context(), []sqlq.Message{letter{}, letter{}}, to),
		"Publish, by middleware":   adding.Publish(t.Context(), posted{}),
		"a delayed one, by option": plain.Send(t.Context(), letter{}, to, by, sqlq.Delay(time.Second)),
	} {
		if !errors.Is(err, sqlq.ErrInvalidName) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s with header %q: %v, want ErrInvalidName", way, name, err)
		}
	}
}
