// Package migrate brings a database schema to the version that sqlq needs.
//
// [Up] does it in one call, as a service may when it starts; several that start at once wait for each other. A [Migrator]
// goes up and down, says how the schema stands, and compares it with what the migrations make. [Script] returns SQL for
// psql or a migration tool of your own. The command line has the same as `sqlq migrate`.
//
// It is apart from package sqlq so that only programs that migrate link goose. The files that it applies are in package
// migrations; goose keeps its record in the table sqlq_migration of the same schema, so several schemas of one
// database have each their own, and a schema that holds an application's tables too keeps that one's goose_db_version.
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

// ErrNewerSchema is returned by Up, Down and Validate when the schema was migrated by a newer release than this one; by Up only if
// it does not serve this one any more. Use that release.
var ErrNewerSchema = errors.New("the schema is newer than this program")

// ErrOneConnection is returned by Up and Down when a second connection is not to be had within 15 seconds, as through a
// pooler that gives out one: the first one waits in a transaction so that nobody else migrates meanwhile. Connect past the
// pooler, or let it have more.
var ErrOneConnection = errors.New("migrating takes two connections at a time, and the second one was not to be had; connect past the pooler, or let it have more (PgBouncer: default_pool_size)")

// ErrEncoding is returned by Up when the database's encoding is neither UTF8 nor SQL_ASCII, so that not every header could be
// stored. Take a database that was made with ENCODING 'UTF8'.
var ErrEncoding = errors.New("the database's encoding is neither UTF8 nor SQL_ASCII")

// Migrator applies migrations to one schema.
type Migrator struct {
	schema   string
	config   *pgx.ConnConfig
	db       *sql.DB
	provider *goose.Provider
	patience time.Duration // for a second connection
}

// Step is one migration that was applied or rolled back.
type Step struct {
	Version  int64         // the number that the file begins with
	Name     string        // file name without folder
	Duration time.Duration // how long it took
}

// State tells of one known migration whether it is applied.
type State struct {
	Version   int64     // the number that the file begins with
	Name      string    // file name without folder
	AppliedAt time.Time // zero: pending
}

// Up applies every pending migration to the schema of the database that connString (URL or key=value) names.
// It is the short form of New, Migrator.Up and Close.
func Up(ctx context.Context, connString, schema string) error {
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return fmt.Errorf("migrate schema %q up: the connection string is none: %w", schema, err)
	}
	m, err := New(config, schema)
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return errors.Join(err, m.Close())
}

// New returns a Migrator for a schema; any name that PostgreSQL leaves to its users will do. It does not connect yet.
// Close it after use.
func New(config *pgx.ConnConfig, schema string) (*Migrator, error) {
	if err := checkSchemaName(schema); err != nil {
		return nil, err
	}
	config = config.Copy()
	if config.DefaultQueryExecMode != pgx.QueryExecModeSimpleProtocol {
		config.DefaultQueryExecMode = pgx.QueryExecModeExec // prepared statements are a session's too
	}
	readableText(config)
	db := stdlib.OpenDB(*config)
	provider, err := newProvider(db, schema, recordIn(schema))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read migrations: %w", err), db.Close())
	}
	return &Migrator{schema: schema, config: config, db: db, provider: provider, patience: 15 * time.Second}, nil
}

// readableText has the server send points in time, which the record has, in the form that pgx reads. These two every pooler
// passes on.
func readableText(config *pgx.ConnConfig) {
	own := map[string]string{"client_encoding": "UTF8", "datestyle": "ISO"}
	maps.DeleteFunc(config.RuntimeParams, func(name, _ string) bool {
		_, is := own[strings.ToLower(name)]
		return is
	})
	maps.Copy(config.RuntimeParams, own)
}

// checkSchemaName refuses names under which the tables would end up in another schema than the one named.
func checkSchemaName(schema string) error {
	const longest = 63 // bytes: NAMEDATALEN of every PostgreSQL that is not built to order
	switch {
	case schema == "":
		return errors.New("no schema is named; sqlq's default is \"sqlq\"")
	case len(schema) > longest:
		return fmt.Errorf("schema name %q has %d bytes: PostgreSQL cuts off what is beyond %d; take a shorter one", schema, len(schema), longest)
	case schema == "$user", strings.HasPrefix(schema, "pg_"), strings.ContainsRune(schema, 0):
		return fmt.Errorf("schema name %q is not allowed: PostgreSQL takes it for another one; take one that does not begin with pg_ or $", schema)
	}
	return nil
}

// Close ends the Migrator's connections.
func (m *Migrator) Close() error { return m.db.Close() }

// Up creates the schema where it is missing and applies what is pending, in order, and returns what it applied. Another
// process that migrates the same schema meanwhile is waited for. A newer schema that still serves this program is left as it is.
// Roles that were granted something get what has come since. Each migration is a transaction: after an error the
// earlier ones stand, the failed one left nothing, and Up can be called again.
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
			return nil // it serves this program: a process of the old release may start again while the new one is rolled out
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

// Down rolls the schema back to a version, 0 for empty. Messages in tables that a migration made go with them. The
// schema itself and goose's record stay.
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
		return fmt.Errorf("%w: database %q has %s; make one with ENCODING 'UTF8'", ErrEncoding, m.config.Database, encoding)
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
		return fmt.Errorf("create schema %q (let the owner of database %q run: GRANT CREATE ON DATABASE %s TO %s): %w", m.schema, m.config.Database,
			pgx.Identifier{m.config.Database}.Sanitize(), pgx.Identifier{m.config.User}.Sanitize(), err)
	}
	if err != nil {
		return fmt.Errorf("create schema %q: %w", m.schema, err)
	}
	return nil
}

// alone runs f while this process alone migrates the schema. The lock belongs to a transaction on a connection of its
// own, so it ends with the process, and works through a transaction pooler too.
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

// second sees that there is a second connection while the first is in a transaction.
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

// outcome returns what goose has done, also when it stopped half-way, and says which migration failed.
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
	return stepsOf(partial.Applied), fmt.Errorf("%s failed and changed nothing (what came before it stands; mend the cause and migrate again): %w", partial.Failed.Source.Path, err)
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
