// Package migrate brings a database schema to the version that sqlq needs.
//
// [Up] does it in one call. A service may call it when it starts; several that start at once wait for each other. A [Migrator]
// migrates up and down, reports the version of the schema, and compares the schema with what the migrations create. [Script] returns
// SQL for psql or for your own migration tool. On the command line the same is available as `sqlq migrate`.
//
// It is a package of its own so that only programs that migrate link goose. The files that it applies are in package
// migrations. Goose keeps its record in the table sqlq_migration of the same schema. So each schema of a database has its own
// record, and the goose_db_version of an application whose tables share the schema is left alone.
package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/sqlq/sqlq/migrations"
)

// ErrNewerSchema is returned by Up, Down and Validate when a newer release has migrated the schema; by Up only if the schema
// no longer serves this one. Use that release.
var ErrNewerSchema = errors.New("the schema is newer than this program")

// ErrOneConnection is returned by Up and Down when no second connection is available within 15 seconds, for example through a
// pooler that has only one. The first connection stays in a transaction so that no other process migrates in the meantime. Connect
// past the pooler, or give it more connections.
var ErrOneConnection = errors.New("migrating takes two connections at a time, and no second one was available; connect past the pooler, or give it more (PgBouncer: default_pool_size)")

// ErrEncoding is returned by Up when the database's encoding is neither UTF8 nor SQL_ASCII, because it could not store every
// header. Use a database created with ENCODING 'UTF8'.
var ErrEncoding = errors.New("the database's encoding is neither UTF8 nor SQL_ASCII")

// Migrator applies migrations to one schema.
type Migrator struct {
	schema   string
	config   *pgx.ConnConfig
	db       *sql.DB
	provider *goose.Provider
	patience time.Duration // how long to wait for a second connection
}

// Step is one migration that was applied or rolled back.
type Step struct {
	Version  int64         // the number at the start of the file name
	Name     string        // file name without folder
	Duration time.Duration // how long it took
}

// State says whether a migration that this program knows is applied.
type State struct {
	Version   int64     // the number at the start of the file name
	Name      string    // file name without folder
	AppliedAt time.Time // zero: pending
}

// Up applies every pending migration to the schema of the database that connString (URL or key=value) names.
// It is the short form of New, Migrator.Up and Close.
func Up(ctx context.Context, connString, schema string) error {
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return fmt.Errorf("migrate schema %q up: invalid connection string: %w", schema, err)
	}
	m, err := New(config, schema)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

// New returns a Migrator for a schema, which may have any name that PostgreSQL does not reserve. It does not connect yet.
// Close it after use.
func New(config *pgx.ConnConfig, schema string) (*Migrator, error) {
	if err := checkSchemaName(schema); err != nil {
		return nil, err
	}
	config = config.Copy()
	if config.DefaultQueryExecMode != pgx.QueryExecModeSimpleProtocol {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec // prepared statements would need a session of our own
	}
	readableText(config)
	db := stdlib.OpenDB(*config)
	provider, err := newProvider(db, schema, recordIn(schema))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read migrations: %w", err), db.Close())
	}
	return &Migrator{schema: schema, config: config, db: db, provider: provider, patience: 15 * time.Second}, nil
}

// readableText makes the server send the times in the record in the format that pgx parses. Every pooler passes on these two
// settings.
func readableText(config *pgx.ConnConfig) {
	own := map[string]string{"client_encoding": "UTF8", "datestyle": "ISO"}
	maps.DeleteFunc(config.RuntimeParams, func(name, _ string) bool {
		_, is := own[strings.ToLower(name)]
		return is
	})
	maps.Copy(config.RuntimeParams, own)
}

// checkSchemaName rejects names that would put the tables into another schema than the one named.
func checkSchemaName(schema string) error {
	const longest = 63 // bytes: NAMEDATALEN - 1, unless PostgreSQL was built with another one
	switch {
	case schema == "":
		return errors.New("no schema is named; name one, sqlq's default is \"sqlq\"")
	case len(schema) > longest:
		return fmt.Errorf("schema name %q has %d bytes, and PostgreSQL would cut it to %d; use a shorter one", schema, len(schema), longest)
	case schema == "$user", strings.HasPrefix(schema, "pg_"), strings.ContainsRune(schema, 0):
		return fmt.Errorf("schema name %q is not allowed, because it has a special meaning in PostgreSQL; use one that does not begin with pg_ or $", schema)
	}
	return nil
}

// Close closes the Migrator's connections.
func (m *Migrator) Close() error { return m.db.Close() }

// Up creates the schema if it is missing, applies the pending migrations in order, and returns those it applied. It waits for
// any other process that is migrating the same schema. A newer schema that still serves this program is left as it is.
// Roles that were granted something get the privileges on what is new. Each migration is a transaction: after an error the
// earlier ones stay applied, the failed one has changed nothing, and Up can be called again.
func (m *Migrator) Up(ctx context.Context) ([]Step, error) {
	var steps []Step
	err := m.alone(ctx, func() error {
		if err := m.checkEncoding(ctx); err != nil {
			return err
		}
		if err := m.createSchema(ctx); err != nil {
			return err
		}
		has, err := m.look(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("read version of schema %q: %w", m.schema, err)
		case has.oldest > migrations.Latest():
			return has.refuseNewer(m.schema)
		case has.version > migrations.Latest():
			return nil // it serves this program: old processes may restart while the new release is rolled out
		}
		results, err := m.provider.Up(ctx)
		steps, err = outcome(results, err)
		return err
	})
	if err != nil {
		return steps, fmt.Errorf("migrate schema %q up: %w", m.schema, err)
	}
	return steps, nil
}

// Down rolls the schema back to a version, 0 for empty. Tables that a rolled-back migration created are dropped with their messages.
// The schema itself and goose's record stay.
func (m *Migrator) Down(ctx context.Context, to int64) ([]Step, error) {
	var steps []Step
	err := m.alone(ctx, func() error {
		has, err := m.look(ctx)
		if err == nil {
			err = has.refuseNewer(m.schema)
		}
		if err != nil {
			return err
		}
		results, err := m.provider.DownTo(ctx, to)
		steps, err = outcome(results, err)
		return err
	})
	if err != nil {
		return steps, fmt.Errorf("migrate schema %q down to %d: %w", m.schema, to, err)
	}
	return steps, nil
}

// Status lists the migrations that this program knows. It changes nothing in the database.
func (m *Migrator) Status(ctx context.Context) ([]State, error) {
	has, err := m.look(ctx)
	if err != nil {
		return nil, fmt.Errorf("read migration status of schema %q: %w", m.schema, err)
	}
	var states []State
	if !has.recorded {
		for _, s := range m.provider.ListSources() {
			states = append(states, State{Version: s.Version, Name: s.Path})
		}
		return states, nil
	}
	known, err := m.provider.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read migration status of schema %q: %w", m.schema, err)
	}
	for _, s := range known {
		states = append(states, State{Version: s.Source.Version, Name: s.Source.Path, AppliedAt: s.AppliedAt})
	}
	return states, nil
}

func newProvider(db *sql.DB, schema string, in record) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectCustom, db, scoped{migrations.FS, schema}, goose.WithStore(in))
}

func (m *Migrator) checkEncoding(ctx context.Context) error {
	var encoding string
	if err := m.db.QueryRowContext(ctx, `SELECT current_setting('server_encoding')`).Scan(&encoding); err != nil {
		return fmt.Errorf("ask for the encoding: %w", err)
	}
	if encoding != "UTF8" && encoding != "SQL_ASCII" {
		return fmt.Errorf("%w: database %q has %s; use one created with ENCODING 'UTF8'", ErrEncoding, m.config.Database, encoding)
	}
	return nil
}

func (m *Migrator) createSchema(ctx context.Context) error {
	var exists bool
	if err := m.db.QueryRowContext(ctx, `SELECT to_regnamespace($1::text) IS NOT NULL`, pgx.Identifier{m.schema}.Sanitize()).Scan(&exists); err != nil {
		return fmt.Errorf("look for schema %q: %w", m.schema, err)
	}
	if exists {
		return nil // the role may be one that cannot create schemas
	}
	_, err := m.db.ExecContext(ctx, `CREATE SCHEMA `+pgx.Identifier{m.schema}.Sanitize())
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("create schema %q (have the owner of database %q run: GRANT CREATE ON DATABASE %s TO %s): %w", m.schema, m.config.Database,
			pgx.Identifier{m.config.Database}.Sanitize(), pgx.Identifier{m.config.User}.Sanitize(), err)
	}
	if err != nil {
		return fmt.Errorf("create schema %q: %w", m.schema, err)
	}
	return nil
}

// alone runs f while no other process migrates the schema. The lock belongs to a transaction on a connection of its
// own, so it is released when the process ends, and works through a transaction pooler too.
func (m *Migrator) alone(ctx context.Context, f func() error) error {
	conn, err := pgx.ConnectConfig(ctx, m.config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('sqlq migrate ' || $1, 0))`, m.schema); err != nil {
			return fmt.Errorf("wait for other migrations: %w", err)
		}
		if err := m.second(ctx); err != nil {
			return err
		}
		return f()
	})
}

// second checks that a second connection is available while the first is in a transaction.
func (m *Migrator) second(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, m.patience)
	defer cancel()
	if err := m.db.PingContext(bounded); err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return ErrOneConnection
	} else if err != nil {
		return fmt.Errorf("connect a second time: %w", err)
	}
	return nil
}

// outcome returns the migrations that goose ran, even if it stopped halfway, and says which one failed.
func outcome(results []*goose.MigrationResult, err error) ([]Step, error) {
	var partial *goose.PartialError
	if !errors.As(err, &partial) {
		return stepsOf(results), err
	}
	err = partial.Err
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		err = pg // goose repeats the file and its statement
	}
	return stepsOf(partial.Applied), fmt.Errorf("%s failed and changed nothing (earlier migrations stay applied; fix the cause and migrate again): %w", partial.Failed.Source.Path, err)
}

func stepsOf(results []*goose.MigrationResult) []Step {
	var steps []Step
	for _, r := range results {
		if r.Error == nil {
			steps = append(steps, Step{Version: r.Source.Version, Name: r.Source.Path, Duration: r.Duration})
		}
	}
	return steps
}
