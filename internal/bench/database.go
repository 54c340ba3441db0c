package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// database is where a run takes place: the server, ours or the user's, and the schema that the run has made there.
type database struct {
	*journal
	url    string
	server *devpg.Server // ours; nil: the user's
	pool   *pgxpool.Pool // to set up and to look; what is measured has connections of its own
	made   bool          // the schema is ours to drop
}

// open starts or finds the server.
func (d *database) open(ctx context.Context, statements bool) (err error) {
	if d.url == "" {
		if err := d.startServer(ctx, statements); err != nil {
			return err
		}
	}
	d.pool, err = d.connect(ctx, 4)
	return err
}

// close removes the schema, or the server with all that is in it.
func (d *database) close() (err error) {
	if d.made && d.server == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = d.dropSchema(ctx)
	}
	if d.pool != nil {
		d.pool.Close()
	}
	if d.server != nil {
		err = errors.Join(err, d.server.Stop())
	}
	return err
}

// startServer starts a throw-away server with PostgreSQL's own settings, as careful with its disk as one in production.
// To count statements it tries to load pg_stat_statements, which an installation may lack.
func (d *database) startServer(ctx context.Context, statements bool) (err error) {
	d.progress("starting a throw-away PostgreSQL")
	o := devpg.Options{Durable: true}
	if statements {
		counting := o
		counting.Settings = map[string]string{"shared_preload_libraries": "pg_stat_statements"}
		if d.server, err = devpg.Start(ctx, counting); err == nil {
			d.url = d.server.URL("postgres")
			return nil
		}
	}
	if d.server, err = devpg.Start(ctx, o); err != nil {
		return fmt.Errorf("start a throw-away server: %w", err)
	}
	d.url = d.server.URL("postgres")
	return nil
}

// makeSchema makes the schema and the library's tables in it.
func (d *database) makeSchema(ctx context.Context, force bool) error {
	const duplicateSchema = "42P06"
	for forced := false; ; forced = true {
		_, err := d.pool.Exec(ctx, `CREATE SCHEMA `+schema)
		if err == nil {
			break
		}
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != duplicateSchema || forced {
			return fmt.Errorf("make schema %s: %w", schema, err)
		}
		if !force {
			return fmt.Errorf("there is a schema %s already: another benchmark runs on this database, or one was killed; "+
				"if nobody needs it, --force drops it first", schema)
		}
		d.made = true
		if err := d.dropSchema(ctx); err != nil {
			return err
		}
	}
	d.made = true
	if err := migrate.Up(ctx, d.url, schema); err != nil {
		return err
	}
	return d.queues(ctx, floorQueue)
}

// dropSchema drops the benchmark's schema. Sessions of processes that were just killed may still be at work in it, and take
// their locks in another order: then it is tried again.
func (d *database) dropSchema(ctx context.Context) error {
	const deadlockDetected, lockNotAvailable = "40P01", "55P03"
	var err error
	for range 10 {
		_, err = d.pool.Exec(ctx, `DROP SCHEMA IF EXISTS `+schema+` CASCADE`)
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

// makeCounter makes pg_stat_statements usable on our own server.
func (d *database) makeCounter(ctx context.Context) {
	// Where it does not work, statements says so.
	_, _ = d.pool.Exec(ctx, `CREATE EXTENSION pg_stat_statements SCHEMA `+schema)
}

// connect opens a pool of up to n connections.
func (d *database) connect(ctx context.Context, n int) (*pgxpool.Pool, error) {
	pool, err := lab.NewPool(ctx, d.url, n, map[string]string{
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
func (d *database) connectAll(ctx context.Context, n int) (pool *pgxpool.Pool, conns []*pgxpool.Conn, err error) {
	if pool, err = d.connect(ctx, n); err != nil {
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
func (d *database) client(ctx context.Context, pool *pgxpool.Pool, queue string, config sqlq.Config) (*sqlq.Client, error) {
	config.Schema, config.Logger = schema, slog.New(slog.DiscardHandler)
	config.Routes = map[string]string{noteType: queue}
	return sqlq.Open(ctx, pool, config)
}

// queues makes queues.
func (d *database) queues(ctx context.Context, names ...string) error {
	for _, name := range names {
		if _, err := ops.New(d.pool, schema).Queues.Create(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// table is the table of a queue; the names of the queues here need no quotes.
func table(queue string) string { return schema + ".q_" + queue }

// empty empties queues' tables, dead rows and all, so that every round finds the same.
func (d *database) empty(ctx context.Context, queues ...string) error {
	for _, q := range queues {
		if _, err := d.pool.Exec(ctx, `TRUNCATE `+table(q)); err != nil {
			return fmt.Errorf("empty queue %q: %w", q, err)
		}
	}
	return nil
}

// holds counts the rows of a table.
func (d *database) holds(ctx context.Context, table string) (n int64, err error) {
	err = d.pool.QueryRow(ctx, `SELECT count(*) FROM `+table).Scan(&n)
	return n, err
}

// copyQueue puts rows into one queue's table that equal those of another's, in the same order.
func (d *database) copyQueue(ctx context.Context, from, to string) error {
	_, err := d.pool.Exec(ctx, fmt.Sprintf(`
		INSERT INTO %s (id, sent_at, expires_at, attempt, type, headers, body)
		SELECT id, sent_at, expires_at, attempt, type, headers, body FROM %s ORDER BY seq`, table(to), table(from)))
	if err != nil {
		return fmt.Errorf("fill the floor's table: %w", err)
	}
	return nil
}

// checkpoint makes a checkpoint, where the role may.
func (d *database) checkpoint(ctx context.Context) error {
	const insufficientPrivilege = "42501"
	_, err := d.pool.Exec(ctx, `CHECKPOINT`)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == insufficientPrivilege {
		d.note("The role may not CHECKPOINT: when the last one was changes how many full-page images the WAL has.")
		return nil
	}
	return err
}
