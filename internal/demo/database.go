package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// database is where the story takes place: a throw-away server, or two schemas in a database that the user names.
type database struct {
	server *devpg.Server
	url    string
	given  bool

	listenURL string // of sqlq.Config
}

// openDatabase starts the server, or connects to the given one, and creates the schemas. The caller must close it.
func openDatabase(ctx context.Context, url string, log io.Writer) (*database, error) {
	server, err := devpg.Start(ctx, devpg.Options{URL: url, InMemory: true, Log: log})
	if err != nil {
		return nil, err
	}
	d := &database{server: server, url: server.URL(""), given: url != ""}
	if err := d.claim(ctx); err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	if err := migrate.Up(ctx, d.url, queueSchema); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// claim creates the schemas and the business tables in one transaction: if two demos use one database, only one gets them.
// It cannot be interrupted, because after an interrupted commit it would be unknown whose they are.
func (d *database) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, schema := range []string{queueSchema, shopSchema} {
			_, err := tx.Exec(ctx, `CREATE SCHEMA `+schema)
			var pg *pgconn.PgError
			if errors.As(err, &pg) && (pg.Code == duplicateSchema || pg.Code == uniqueViolation) {
				return fmt.Errorf("schema %q already exists in database %q: another demo is running there, or one was killed; if none is running, remove what is left: DROP SCHEMA IF EXISTS %s, %s CASCADE",
					schema, conn.Config().Database, queueSchema, shopSchema)
			}
			if err != nil {
				return fmt.Errorf("create schema %q: %w", schema, err)
			}
		}
		return createShop(ctx, tx)
	})
}

const (
	duplicateSchema = "42P06"
	uniqueViolation = "23505" // two demos create the same schema at the same moment
)

// claimWithin and removeWithin limit the steps that are done even when the demo is interrupted.
const (
	claimWithin  = 10 * time.Second
	removeWithin = 20 * time.Second
)

// close removes everything that the demo created. All its connections must be closed before.
func (d *database) close() error {
	if !d.given {
		return d.server.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.url)
	if err == nil {
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, `DROP SCHEMA IF EXISTS `+queueSchema+`, `+shopSchema+` CASCADE`)
	}
	if err != nil {
		return fmt.Errorf("remove the demo's schemas %s and %s: %w", queueSchema, shopSchema, err)
	}
	return nil
}

// connect returns a separate pool for one of the story's processes.
func (d *database) connect(ctx context.Context, name string, connections int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(d.url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	config.ConnConfig.RuntimeParams["application_name"] = "sqlq demo: " + name
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", name, err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect %s: %w", name, err)
	}
	return pool, nil
}
