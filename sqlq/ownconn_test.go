package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// poolWith opens a pool on a migrated database whose configuration a test has changed.
func poolWith(t *testing.T, url string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	change(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// allWays runs endpoints on a pool and sees a message through each way of receiving: a plain handler, one that is leased, a
// HandleTx handler, and one that is delayed. check looks at the connection of the HandleTx handler.
func allWays(t *testing.T, pool *pgxpool.Pool, config sqlq.Config, check func(ctx context.Context, tx pgx.Tx) error) {
	t.Helper()
	got := make(chan string, 10)
	config.HoldLimit = 10 * time.Millisecond
	c := open(t, pool, config)
	stop := run(t, c, sqlq.Endpoint{Name: "plain", Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
			if d.Message.N == 2 { // long enough to be leased
				eventually(t, "a lease", func() (bool, string) { return count(t, pool, `SELECT count(*) FROM sqlq.leased`) > 0, "" })
			}
			got <- fmt.Sprint("plain ", d.Message.N, " ", time.Since(d.SentAt).Abs() < time.Hour)
			return nil
		})}}, sqlq.Endpoint{Name: "tx", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[text]) error {
			if err := check(ctx, tx); err != nil {
				got <- err.Error()
				return err
			}
			got <- fmt.Sprint("tx ", d.Message.Text, " ", time.Since(d.SentAt).Abs() < time.Hour)
			return nil
		})}})
	eventually(t, "listening", func() (bool, string) { return c.Stats().Listening, "" })
	for _, send := range []error{
		c.Send(t.Context(), letter{N: 1}, sqlq.To("plain")), c.Send(t.Context(), letter{N: 2}, sqlq.To("plain")),
		c.Send(t.Context(), letter{N: 3}, sqlq.To("plain"), sqlq.Delay(10*time.Millisecond)), c.Send(t.Context(), text{"4"}, sqlq.To("tx")),
	} {
		if send != nil {
			t.Fatal(send)
		}
	}
	seen := map[string]bool{}
	deadline := time.After(patience)
	for range 4 {
		select {
		case s := <-got:
			seen[s] = true
		case <-deadline:
			t.Fatalf("handled only %v", seen)
		}
	}
	for _, want := range []string{"plain 1 true", "plain 2 true", "plain 3 true", "tx 4 true"} {
		if !seen[want] {
			t.Errorf("%q is missing among %v", want, seen)
		}
	}
	stop()
}

// countingTracer counts the statements that it sees.
type countingTracer struct {
	mu   sync.Mutex
	seen map[string]int // by application_name
}

func (c *countingTracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[conn.Config().RuntimeParams["application_name"]+": "+data.SQL]++
	return ctx
}

func (*countingTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// What the program has set on its pool for itself does not come between the library and the server: callbacks that keep the
// notifications, caches of no size, limits on answers. (OnNotification for a cache that is invalidated by LISTEN is common.)
func TestHostilePoolConfig(t *testing.T) {
	t.Parallel()
	for mode := range pgx.QueryExecModeSimpleProtocol + 1 {
		if mode == 0 {
			mode = pgx.QueryExecModeCacheStatement
		}
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			var notified, noticed, refused, built atomic.Int32
			tracer := &countingTracer{seen: map[string]int{}}
			pool := poolWith(t, url, func(config *pgxpool.Config) {
				c := config.ConnConfig
				c.DefaultQueryExecMode = mode
				c.RuntimeParams["application_name"] = "program"
				c.RuntimeParams["Search_Path"] = "nowhere"
				c.RuntimeParams["client_Encoding"] = "UTF8"
				c.Tracer = tracer
				c.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { notified.Add(1) }
				c.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { noticed.Add(1) }
				own := func(pg *pgconn.PgConn) bool { return pg.ParameterStatus("application_name") != "program" }
				c.OnPgError = func(pg *pgconn.PgConn, err *pgconn.PgError) bool {
					if own(pg) {
						refused.Add(1)
					}
					return false
				}
				c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
					built.Add(1)
					return pgproto3.NewFrontend(r, w)
				}
				config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error { // the pool itself needs them
					if mode != pgx.QueryExecModeCacheStatement {
						c.StatementCacheCapacity = 0
					}
					if mode != pgx.QueryExecModeCacheDescribe {
						c.DescriptionCacheCapacity = 0
					}
					return nil
				}
				config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
					_, err := conn.Exec(ctx, `LISTEN cache`)
					return err
				}
			})
			before := built.Load()
			allWays(t, pool, sqlq.Config{}, func(ctx context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, `SELECT 'first of the handler'`); err != nil { // which may go with the savepoint, as a batch
					return err
				}
				_, err := tx.Exec(ctx, `SELECT 'of the handler'`)
				return err
			})
			if n := notified.Load() + noticed.Load() + refused.Load(); n > 0 {
				t.Errorf("the program's callbacks were called %d times for connections that are not its own", n)
			}
			if n := built.Load() - before; int64(n) > pool.Stat().NewConnsCount() {
				t.Errorf("the program's BuildFrontend was called %d times for %d connections of the pool", n, pool.Stat().NewConnsCount())
			}
			tracer.mu.Lock()
			defer tracer.mu.Unlock()
			for what, n := range tracer.seen {
				if len(what) < 8 || what[:8] != "program:" {
					if what != `sqlq receive: SELECT 'of the handler'` && what != `sqlq receive: SELECT 'first of the handler'` {
						t.Errorf("the program's tracer saw %q %d times", what, n)
					}
				}
			}
			if tracer.seen[`sqlq receive: SELECT 'of the handler'`] == 0 {
				t.Error("the program's tracer did not see what its handler ran")
			}
		})
	}
}

// A limit on the size of the server's messages that the program has for itself keeps no body from its handler.
func TestMaxProtocolMessageBodyLen(t *testing.T) {
	t.Parallel()
	pool := poolWith(t, pgtest.Database(t), func(config *pgxpool.Config) { config.ConnConfig.MaxProtocolMessageBodyLen = 10_000 })
	c := open(t, pool, sqlq.Config{})
	execSQL(t, pool, `SELECT sqlq.create_queue('large')`)
	handled := make(chan int, 1)
	run(t, c, sqlq.Endpoint{Name: "large", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[text]) error {
			handled <- len(d.Message.Text)
			return nil
		})}})
	if err := c.Send(t.Context(), text{Text: string(make([]byte, 50_000))}, sqlq.To("large")); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-handled:
		if n != 50_000 {
			t.Errorf("%d bytes were handled", n)
		}
	case <-time.After(patience):
		t.Fatal("not handled")
	}
}

type text struct{ Text string }

func (text) MessageType() string { return "own.Text" }

// A password that BeforeConnect puts in, as one that is rotated or a token of a cloud, opens the library's own connections
// too, when they begin and when they come back.
func TestBeforeConnectOnOwnConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	limited := asRole(t, url, ``)
	role := limited.Config().ConnConfig.User
	execSQL(t, admin, `SELECT sqlq.create_queue('plain'), sqlq.create_queue('tx')`)
	var password atomic.Pointer[string]
	rotate := func(to string) {
		execSQL(t, admin, fmt.Sprintf(`ALTER ROLE %s PASSWORD '%s'`, role, to))
		password.Store(&to)
	}
	rotate("first")
	pool := poolWith(t, url, func(config *pgxpool.Config) {
		config.ConnConfig.User, config.ConnConfig.Password = role, "none"
		config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
			c.Password = *password.Load()
			return nil
		}
	})
	handled := make(chan int, 10)
	c := open(t, pool, sqlq.Config{})
	run(t, c, sqlq.Endpoint{Name: "plain", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { handled <- d.Message.N; return nil })}})
	wait := func(want int) {
		t.Helper()
		if err := c.Send(t.Context(), letter{N: want}, sqlq.To("plain")); err != nil {
			t.Fatal(err)
		}
		select {
		case n := <-handled:
			if n != want {
				t.Errorf("handled %d, want %d", n, want)
			}
		case <-time.After(patience):
			t.Fatalf("message %d was not handled", want)
		}
	}
	wait(1)
	rotate("second")
	execSQL(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name LIKE 'sqlq %'`, role)
	wait(2)
}

// What AfterConnect sets up holds on the library's own connections: the role, the search_path and the types that handlers
// count on.
func TestAfterConnectOnOwnConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	role := asRole(t, url, ``).Config().ConnConfig.User
	execSQL(t, admin, `SELECT sqlq.create_queue('plain'), sqlq.create_queue('tx')`)
	execSQL(t, admin, `CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('well')`)
	execSQL(t, admin, `GRANT USAGE ON SCHEMA app TO `+role)
	pool := poolWith(t, url, func(config *pgxpool.Config) {
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if _, err := conn.Exec(ctx, `SET ROLE `+role+`; SET search_path = app; LISTEN cache`); err != nil {
				return err
			}
			mood, err := conn.LoadType(ctx, "mood")
			if err == nil {
				conn.TypeMap().RegisterType(mood)
			}
			return err
		}
	})
	allWays(t, pool, sqlq.Config{}, func(ctx context.Context, tx pgx.Tx) error {
		var who, path string
		var listens int
		if err := tx.QueryRow(ctx, `SELECT current_user, current_setting('search_path'), (SELECT count(*) FROM pg_listening_channels())`).Scan(&who, &path, &listens); err != nil {
			return err
		}
		_, registered := tx.Conn().TypeMap().TypeForName("mood")
		if who != role[:63] || path != "app" || !registered || listens > 0 {
			return fmt.Errorf("role %s, search_path %s, mood known: %v, listens to %d channels", who, path, registered, listens)
		}
		return nil
	})
}

// With Config.ListenURL the two connections that it is for have its settings, and not what the pool's are given.
func TestConnectHooksAndListenURL(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	var mu sync.Mutex
	names := map[string]int{}
	pool := poolWith(t, url, func(config *pgxpool.Config) {
		config.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
			mu.Lock()
			defer mu.Unlock()
			names[conn.PgConn().ParameterStatus("application_name")]++
			return nil
		}
	})
	allWays(t, pool, sqlq.Config{ListenURL: url}, func(context.Context, pgx.Tx) error { return nil })
	mu.Lock()
	defer mu.Unlock()
	if names["sqlq receive"] == 0 || names["sqlq listen"] > 0 || names["sqlq keep"] > 0 {
		t.Errorf("AfterConnect was called for %v", names)
	}
}

// A hook that fails is an error that names it, and one that leaves a transaction open is not relied upon.
func TestConnectHooksThatFail(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	broken := errors.New("no token today")
	var fails atomic.Bool
	pool := poolWith(t, url, func(config *pgxpool.Config) {
		config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
			if fails.Load() {
				return broken
			}
			return nil
		}
	})
	c := open(t, pool, sqlq.Config{})
	if err := c.Prepare(t.Context(), receiveLetters("post")); err != nil {
		t.Fatal(err)
	}
	fails.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Run(ctx, receiveLetters("post")); !errors.Is(err, broken) {
		t.Errorf("Run: %v, want the hook's error", err)
	}
	var left atomic.Bool
	pool = poolWith(t, url, func(config *pgxpool.Config) {
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if !left.Load() {
				return nil
			}
			_, err := conn.Exec(ctx, `BEGIN`)
			return err
		}
	})
	c = open(t, pool, sqlq.Config{})
	if err := c.Prepare(t.Context(), receiveLetters("post")); err != nil {
		t.Fatal(err)
	}
	left.Store(true)
	if err := c.Run(ctx, receiveLetters("post")); err == nil {
		t.Error("Run went on with a connection that is in a transaction")
	}
}

// Through a role or database whose text format is not pgx's, in modes that read text, everything is received.
func TestTextSettings(t *testing.T) {
	t.Parallel()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			execSQL(t, poolOn(t, url), `DO $$
				DECLARE s text;
				BEGIN
					FOREACH s IN ARRAY ARRAY['datestyle = ''SQL, DMY''', 'intervalstyle = sql_standard', 'timezone = ''Asia/Kathmandu''',
						'bytea_output = escape', 'extra_float_digits = -10', 'default_transaction_isolation = serializable',
						'idle_session_timeout = 700'] LOOP
						EXECUTE format('ALTER DATABASE %I SET %s', current_database(), s);
					END LOOP;
				END $$`)
			pool := poolWith(t, url, func(config *pgxpool.Config) { config.ConnConfig.DefaultQueryExecMode = mode })
			allWays(t, pool, sqlq.Config{}, func(ctx context.Context, tx pgx.Tx) error {
				// What the handler's own SQL means is as on the program's connections.
				var day string
				if err := tx.QueryRow(ctx, `SELECT to_char('02/01/2026'::date, 'YYYY-MM-DD') || current_setting('timezone')`).Scan(&day); err != nil {
					return err
				}
				if day != "2026-01-02Asia/Kathmandu" {
					return fmt.Errorf("02/01/2026 is %s", day)
				}
				return nil
			})
		})
	}
}
