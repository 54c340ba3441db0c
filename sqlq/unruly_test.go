package sqlq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// A handler that ends its goroutine fails its message, as often as the policy says, and costs the endpoint no slot.
func TestGoexit(t *testing.T) {
	t.Parallel()
	plain := func(f func(n int) error) sqlq.Handler {
		return sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { return f(d.Message.N) })
	}
	inTx := func(f func(n int) error) sqlq.Handler {
		return sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[letter]) error {
			if _, err := tx.Exec(ctx, `INSERT INTO public.done VALUES ($1)`, d.Message.N); err != nil {
				return err
			}
			return f(d.Message.N)
		})
	}
	for name, handle := range map[string]func(func(n int) error) sqlq.Handler{"Handle": plain, "HandleTx": inTx} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `CREATE TABLE public.done (n int)`)
			execSQL(t, pool, `SELECT sqlq.create_queue('work')`)
			c := open(t, pool, sqlq.Config{ReceiveConnections: 1, Routes: map[string]string{"post.Letter": "work"}})
			stop := run(t, c, sqlq.Endpoint{Name: "work", Concurrency: 2, Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}}, Handlers: []sqlq.Handler{
				handle(func(n int) error {
					if n%2 == 1 {
						runtime.Goexit()
					}
					return nil
				}),
			}})
			for n := range 10 {
				if err := c.Send(t.Context(), letter{N: n}); err != nil {
					t.Fatal(err)
				}
			}
			eventuallyCount(t, pool, 5, `SELECT count(*) FROM sqlq.error WHERE attempts = 4 AND message LIKE '%runtime.Goexit%'`)
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_work) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
			if n := count(t, pool, `SELECT count(*) FROM public.done`); name == "HandleTx" && n != 5 {
				t.Errorf("%d effects, want 5", n)
			}
			began := time.Now()
			stop()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the drain took %v", took)
			}
		})
	}
}

// ends are strings of SQL that end the transaction, and stays those that do not.
var (
	ends = []string{`COMMIT`, ` commit;`, `/* a */ COMMIT`, "-- a\nCOMMIT", `/* /* a */ b */ rollback`, `SELECT 1; COMMIT; BEGIN`, `INSERT INTO public.done VALUES (1); COMMIT; BEGIN`,
		`;;END`, `SELECT ';'; ABORT`, `SELECT 'it''s;'; COMMIT`, `SELECT E'\';'; COMMIT; BEGIN`, `SELECT $$;$$; COMMIT`, `SELECT $a$;$b$;$a$; COMMIT`, `SELECT "a;""b" FROM (SELECT 1 AS "a;""b") x; COMMIT`,
		`SELECT 1 -- ;
			; COMMIT`, `SELECT '\'; COMMIT; BEGIN`, `START TRANSACTION`, `ROLLBACK AND CHAIN`, `COMMIT AND CHAIN`, `rollback work`, `PREPARE TRANSACTION 'x'`, `SELECT 1;/**/ROLLBACK`, `SELECT (1); COMMIT`}
	stays = []string{``, ` `, `;`, `SELECT 1`, `SELECT 1; SELECT 2;`, `SELECT 'COMMIT; ROLLBACK'`, `SELECT '; COMMIT'`, `SELECT E'\'; COMMIT'`, `SELECT $$; COMMIT$$`, `SELECT $x$; COMMIT $$ $x$`,
		`SELECT 1 /* ; COMMIT */`, "SELECT 1 -- ; COMMIT\n", `SAVEPOINT a; ROLLBACK TO a`, `SAVEPOINT a; ROLLBACK WORK TO SAVEPOINT a; RELEASE a`, `SELECT 1 AS "; COMMIT"`,
		`SELECT 'a''; COMMIT'`, `DO $f$ BEGIN PERFORM 1; END $f$`, `SELECT 1 AS commit`, `PREPARE committed AS SELECT 1; DEALLOCATE committed`}
)

func TestRefuseControl(t *testing.T) {
	t.Parallel()
	for _, sql := range ends {
		if err := sqlq.RefuseControl(sql); !errors.Is(err, sqlq.ErrTransactionOwned) {
			t.Errorf("%q: %v, want ErrTransactionOwned", sql, err)
		}
	}
	for _, sql := range append(stays, `CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END`, `CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; END)`,
		`SELECT $1; SELECT 2`, `SELECT '`, `SELECT $a$`, `/*`, `"`, `E'\`) {
		if err := sqlq.RefuseControl(sql); err != nil {
			t.Errorf("%q: %v", sql, err)
		}
	}
}

// The server agrees about which strings end a transaction.
func TestRefuseControlAsTheServer(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for i, sql := range append(ends, stays...) {
		if i < len(ends) && strings.HasPrefix(strings.ToUpper(sql), "START") || strings.Contains(sql, "public.done") || strings.Contains(sql, "PREPARE TRANSACTION") {
			continue
		}
		if _, err := conn.Exec(t.Context(), `BEGIN; SAVEPOINT ours`); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Exec(t.Context(), sql)
		if err != nil {
			t.Errorf("%q: %v", sql, err)
		}
		_, gone := conn.Exec(t.Context(), `RELEASE ours`)
		if (gone != nil) != (i < len(ends)) {
			t.Errorf("%q ended the transaction: %v", sql, gone)
		}
		if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
			t.Fatal(err)
		}
	}
}

// Text within quotes ends no transaction, and what follows it does.
func FuzzRefuseControl(f *testing.F) {
	for _, sql := range append(ends, stays...) {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_ = sqlq.RefuseControl(text)
		for _, quoted := range []string{
			`'` + strings.ReplaceAll(text, `'`, `''`) + `'`,
			`"` + strings.ReplaceAll(text, `"`, `""`) + `"`,
			`E'` + strings.NewReplacer(`'`, `\'`, `\`, `\\`).Replace(text) + `'`,
			`$q$` + strings.ReplaceAll(text, `$`, ``) + `$q$`,
			`/*` + strings.NewReplacer(`*`, ``, `/`, ``).Replace(text) + `*/`,
			`--` + strings.NewReplacer("\n", ``, "\r", ``).Replace(text) + "\n",
		} {
			if err := sqlq.RefuseControl(`SELECT 1 ` + quoted); err != nil {
				t.Errorf("%q: %v", quoted, err)
			}
			if err := sqlq.RefuseControl(`SELECT 1 ` + quoted + `; ` + "COMMIT"); err == nil {
				t.Errorf("%q and a COMMIT is let through", quoted)
			}
		}
	})
}

// A handler that hides a COMMIT in a string of several statements changes nothing and fails; its neighbours do not.
func TestHiddenCommit(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `CREATE TABLE public.done (n int)`)
	c := open(t, pool, sqlq.Config{ReceiveConnections: 1, Routes: map[string]string{"post.Letter": "work"}})
	execSQL(t, pool, `SELECT sqlq.create_queue('work')`)
	ms := make([]sqlq.Message, 9)
	for n := range ms {
		ms[n] = letter{N: n}
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	run(t, c, sqlq.Endpoint{Name: "work", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[letter]) error {
			if _, err := tx.Exec(ctx, `INSERT INTO public.done VALUES ($1)`, d.Message.N); err != nil || d.Message.N%3 > 0 {
				return err
			}
			_, err := tx.Exec(ctx, fmt.Sprintf(`INSERT INTO public.done VALUES (%d); COMMIT; BEGIN`, 100+d.Message.N))
			return err
		}),
	}})
	eventuallyCount(t, pool, 3, `SELECT count(*) FROM sqlq.error WHERE message LIKE '%COMMIT is refused%'`)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_work`)
	if n, distinct := count(t, pool, `SELECT count(*) FROM public.done`), count(t, pool, `SELECT count(DISTINCT n) FROM public.done WHERE n % 3 > 0`); n != 6 || distinct != 6 {
		t.Errorf("%d effects, %d messages; want 6 and 6", n, distinct)
	}
}

// A delayed message whose queue is gone keeps its own headers in the error table; what the library's say is in columns.
func TestQueueGoneKeepsHeaders(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{})
	cases := []struct {
		headers, want string // "": null
		replays       int
		first         string
	}{
		{``, ``, 0, ``},
		{`{"a":"b"}`, `{"a":"b"}`, 0, ``},
		{`{"sqlq-first-failed-at":"2026-01-02T03:04:05.000006Z"}`, ``, 0, `2026-01-02T03:04:05.000006Z`},
		{`{"a":"b","sqlq-crashes":"1","sqlq-first-failed-at":"2026-01-02T03:04:05Z","sqlq-replays":"7"}`, `{"a":"b"}`, 7, `2026-01-02T03:04:05Z`},
		{`{"sqlq-crashes":"1","sqlq-replays":"7","z":"\u0000"}`, `{"z":"\u0000"}`, 7, ``},
		{`{"a":"\",\"sqlq-replays\":\"9\"","sqlq-replays":"2","sqlq-replays":"3"}`, `{"a":"\",\"sqlq-replays\":\"9\""}`, 3, ``},
		{`{"sqlq-content-type":"text/x","sqlq-replays":"3"}`, `{"sqlq-content-type":"text/x"}`, 3, ``},
		{`{"x\"sqlq-replays":"9","sqlq-replays":"3","y,\"sqlq-first-failed-at":"2026-01-02T03:04:05Z"}`, `{"x\"sqlq-replays":"9","y,\"sqlq-first-failed-at":"2026-01-02T03:04:05Z"}`, 3, ``},
		{`["sqlq-replays"]`, `["sqlq-replays"]`, 0, ``},
		{`"sqlq-replays"`, `"sqlq-replays"`, 0, ``},
		{`{"sqlq-first-failed-at":"tomorrow","sqlq-replays":"many"}`, ``, 0, ``},
		{`{"sqlq-first-failed-at":"2026-99-99T03:04:05Z","a":"b"}`, `{"a":"b"}`, 0, ``},
	}
	for i, k := range cases {
		execSQL(t, pool, `INSERT INTO sqlq.delayed (due_at, id, attempt, why, queue, type, headers, body) VALUES (now(), sqlq.uuid_v7(), 3, 'retry', 'gone', $1, nullif($2, '')::json, 'x')`, fmt.Sprint(i), k.headers)
	}
	run(t, c, receiveLetters("here"))
	eventuallyCount(t, pool, len(cases), `SELECT count(*) FROM sqlq.error WHERE attempts = 3 AND body = 'x'`)
	for i, k := range cases {
		var headers string
		var replays int
		var first time.Time
		if err := pool.QueryRow(t.Context(), `SELECT coalesce(headers::text, ''), replays, first_failed_at FROM sqlq.error WHERE type = $1`, fmt.Sprint(i)).Scan(&headers, &replays, &first); err != nil {
			t.Fatal(err)
		}
		if want, _ := time.Parse(time.RFC3339, k.first); headers != k.want || replays != k.replays || !want.IsZero() && !first.Equal(want) {
			t.Errorf("%s: headers %s, %d replays, first failed %v", k.headers, headers, replays, first)
		}
	}
}

// A message whose receive connection was lost is handled again at once, also where nothing else is sent and nobody polls.
func TestLostConnectionCostsNoWaiting(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{PollInterval: time.Hour})
	calls := 0
	done := make(chan bool, 1)
	endpoint := sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, _ *sqlq.Delivery[letter]) error {
			if calls++; calls%3 != 0 {
				_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
				return err
			}
			done <- true
			return nil
		})}}
	if err := c.Prepare(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
	run(t, c, endpoint)
	for n := range 30 {
		if err := c.Send(t.Context(), letter{N: n}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("message %d was not handled within %v", n, patience)
		}
	}
}

// So is one that was fetched when the network broke, although the server goes on holding it for a while.
func TestNetworkThatBreaksAtTheFetchCostsNoWaiting(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return &breaksAtFetch{Conn: conn, before: &broken}, err
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // the text goes with what runs it
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	execSQL(t, pool, `SELECT sqlq.create_queue('post'), sqlq.send('post', 'post.Letter', '{}')`)
	c := open(t, pool, sqlq.Config{PollInterval: time.Hour})
	done := make(chan bool)
	run(t, c, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { close(done); return nil })}})
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("not handled within %v, broken: %v", patience, broken.Load())
	}
}

// breaksAtFetch is a connection that breaks, if it is the first, when the first message has been fetched by it. The server learns of it
// later.
type breaksAtFetch struct {
	net.Conn
	before  *atomic.Bool // one has
	fetched bool
	broke   atomic.Bool
}

func (c *breaksAtFetch) Write(b []byte) (int, error) {
	if c.broke.Load() {
		return 0, net.ErrClosed
	}
	c.fetched = c.fetched || bytes.Contains(b, []byte("FOR UPDATE SKIP LOCKED")) && bytes.Contains(b, []byte("ctid"))
	return c.Conn.Write(b)
}

func (c *breaksAtFetch) Read(b []byte) (int, error) {
	if c.broke.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if c.fetched && bytes.Contains(b[:n], []byte("post.Letter")) && c.before.CompareAndSwap(false, true) {
		c.broke.Store(true)
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *breaksAtFetch) Close() error {
	if !c.broke.Load() {
		return c.Conn.Close()
	}
	time.AfterFunc(300*time.Millisecond, func() { c.Conn.Close() })
	return nil
}
