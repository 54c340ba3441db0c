package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// schema holds all that a benchmark makes in the database.
const schema = "sqlq_bench"

// floorQueue is the queue whose table the floors work on: the library makes it, so it is of the same make as the others,
// and nobody receives from it.
const floorQueue = "floor"

// enoughRounds is when a median does not get any better.
const enoughRounds = 15

// rig is the database of one run, and what must be tidied up in the end.
type rig struct {
	Options
	began  time.Time
	server *devpg.Server // ours; nil: the user's
	url    string
	pool   *pgxpool.Pool // to set up and to look; what is measured has connections of its own
	made   bool          // the schema is ours to drop
	facts  Server
	cpu    *accounting // nil: the server's processes are not on this machine

	mu       sync.Mutex
	children []*child
	notes    []string
}

// open starts or finds the server and makes the schema.
func open(ctx context.Context, o Options, statements bool) (l *rig, err error) {
	l = &rig{Options: o, began: time.Now(), url: o.DatabaseURL, notes: []string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.url == "" {
		if err := l.startServer(ctx, statements); err != nil {
			return l, err
		}
	}
	if l.pool, err = l.connect(ctx, 4); err != nil {
		return l, err
	}
	if l.facts, err = readServer(ctx, l.pool, l.server != nil); err != nil {
		return l, err
	}
	l.cpu = findAccounting(ctx, l.pool)
	if err := l.makeSchema(ctx); err != nil {
		return l, err
	}
	if l.server != nil && statements {
		l.makeCounter(ctx)
	}
	return l, nil
}

// startServer starts a throw-away server with PostgreSQL's own settings, as careful with its disk as one in production.
// To count statements it tries to load pg_stat_statements, which an installation may lack.
func (l *rig) startServer(ctx context.Context, statements bool) (err error) {
	l.progress("starting a throw-away PostgreSQL")
	o := devpg.Options{Durable: true}
	if statements {
		counting := o
		counting.Settings = map[string]string{"shared_preload_libraries": "pg_stat_statements"}
		if l.server, err = devpg.Start(ctx, counting); err == nil {
			l.url = l.server.URL("postgres")
			return nil
		}
	}
	if l.server, err = devpg.Start(ctx, o); err != nil {
		return fmt.Errorf("start a throw-away server: %w", err)
	}
	l.url = l.server.URL("postgres")
	return nil
}

// makeSchema makes the schema and the library's tables in it.
func (l *rig) makeSchema(ctx context.Context) error {
	const duplicateSchema = "42P06"
	for forced := false; ; forced = true {
		_, err := l.pool.Exec(ctx, `CREATE SCHEMA `+schema)
		if err == nil {
			break
		}
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != duplicateSchema || forced {
			return fmt.Errorf("make schema %s: %w", schema, err)
		}
		if !l.Force {
			return fmt.Errorf("there is a schema %s already: another benchmark runs on this database, or one was killed; "+
				"if nobody needs it, --force drops it first", schema)
		}
		l.made = true
		if err := l.dropSchema(ctx); err != nil {
			return err
		}
	}
	l.made = true
	if err := migrate.Up(ctx, l.url, schema); err != nil {
		return err
	}
	return l.queues(ctx, floorQueue)
}

// dropSchema drops the benchmark's schema. Sessions of processes that were just killed may still be at work in it, and take
// their locks in another order: then it is tried again.
func (l *rig) dropSchema(ctx context.Context) error {
	const deadlockDetected, lockNotAvailable = "40P01", "55P03"
	var err error
	for range 10 {
		_, err = l.pool.Exec(ctx, `DROP SCHEMA IF EXISTS `+schema+` CASCADE`)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != deadlockDetected && pg.Code != lockNotAvailable {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("drop schema %s, do it yourself (DROP SCHEMA %[1]s CASCADE): %w", schema, err)
	}
	return nil
}

// close ends the receiving processes and removes the schema, or the server with all that is in it. It does so too when
// the context of the run has ended.
func (l *rig) close() error {
	l.progress("tidying up")
	defer l.progress("")
	for _, c := range l.children {
		c.kill()
	}
	var err error
	if l.made && l.server == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = l.dropSchema(ctx)
	}
	if l.pool != nil {
		l.pool.Close()
	}
	if l.server != nil {
		err = errors.Join(err, l.server.Stop())
	}
	return err
}

// connect opens a pool of up to n connections.
func (l *rig) connect(ctx context.Context, n int) (*pgxpool.Pool, error) {
	pool, err := lab.NewPool(ctx, l.url, n, map[string]string{
		"application_name":  "sqlq bench",
		"statement_timeout": "0", // filling and dropping take their time
	})
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return pool, nil
}

// connectAll opens a pool of n connections and all of them at once, so that none is opened while something is measured.
func (l *rig) connectAll(ctx context.Context, n int) (pool *pgxpool.Pool, conns []*pgxpool.Conn, err error) {
	if pool, err = l.connect(ctx, n); err != nil {
		return nil, nil, err
	}
	if conns, err = acquire(ctx, pool, n); err != nil {
		pool.Close()
		return nil, nil, fmt.Errorf("open %d connections: %w", n, err)
	}
	return pool, conns, nil
}

// acquire takes n connections from a pool.
func acquire(ctx context.Context, pool *pgxpool.Pool, n int) (conns []*pgxpool.Conn, err error) {
	for range n {
		c, err := pool.Acquire(ctx)
		if err != nil {
			release(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func release(conns []*pgxpool.Conn) {
	for _, c := range conns {
		c.Release()
	}
}

// client opens the library, with notes routed to a queue.
func (l *rig) client(ctx context.Context, pool *pgxpool.Pool, queue string, config sqlq.Config) (*sqlq.Client, error) {
	config.Schema, config.Logger = schema, slog.New(slog.DiscardHandler)
	config.Routes = map[string]string{noteType: queue}
	return sqlq.Open(ctx, pool, config)
}

// queues makes queues.
func (l *rig) queues(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := ops.New(l.pool, schema).Queues.Create(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// table is the table of a queue; the names of the queues here need no quotes.
func table(queue string) string { return schema + ".q_" + queue }

// empty empties queues' tables, dead rows and all, so that every round finds the same.
func (l *rig) empty(ctx context.Context, queues ...string) error {
	for _, q := range queues {
		if _, err := l.pool.Exec(ctx, `TRUNCATE `+table(q)); err != nil {
			return fmt.Errorf("empty queue %q: %w", q, err)
		}
	}
	return nil
}

// holds counts the rows of a table.
func (l *rig) holds(ctx context.Context, table string) (n int64, err error) {
	err = l.pool.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n)
	return n, err
}

// rounds calls f for as long as Options.Duration allows one more, at least once and at most so often. It returns how often.
func (l *rig) rounds(ctx context.Context, most int, f func(round int) error) (n int, err error) {
	began, longest := time.Now(), time.Duration(0)
	for n == 0 || n < most && time.Since(began)+longest <= l.Duration {
		this := time.Now()
		if err := f(n); err != nil {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		longest = max(longest, time.Since(this))
		n++
	}
	return n, nil
}

// alternate calls the functions in turn, in odd rounds from the last to the first, so that neither always comes after
// the other.
func alternate(round int, fs ...func() error) error {
	for i := range fs {
		if round%2 == 1 {
			i = len(fs) - 1 - i
		}
		if err := fs[i](); err != nil {
			return err
		}
	}
	return nil
}

func (l *rig) progress(format string, args ...any) {
	if l.Progress != nil {
		l.Progress(fmt.Sprintf(format, args...))
	}
}

// note adds a sentence to the result, once.
func (l *rig) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	for _, n := range l.notes {
		if n == text {
			return
		}
	}
	l.notes = append(l.notes, text)
}

// profile writes a CPU profile of this process until it is stopped, if one is wanted.
func (l *rig) profile() (stop func(), err error) {
	if l.Profile == "" {
		return func() {}, nil
	}
	return profileTo(l.Profile + "-driver.pprof")
}

func profileTo(name string) (stop func(), err error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		file.Close()
	}, nil
}
