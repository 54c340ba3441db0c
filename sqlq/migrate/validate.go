package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/migrations"
)

// ErrNoSchema is returned by Validate when no migration is applied to the schema. Call Up first.
var ErrNoSchema = errors.New("the schema has no sqlq tables")

// Difference is something in a schema that differs from what the migrations create.
type Difference struct {
	Object string // "q_sales", "error", "function send(…)", …: the table, sequence or function
	Want   string // what the migrations create; "": nothing
	Have   string // what is there; "": nothing
}

// Validate compares the schema with what the migrations up to its version make: tables and their options, columns, keys,
// indexes, triggers, policies, sequences, functions, and what everybody (PUBLIC) may do; of each queue too. Comments and the
// privileges of roles are left out. It makes a second schema to compare with, in a transaction that it rolls back, and changes
// nothing. On a standby, and for a role that may not make schemas, it compares with what the program has stored of the newest
// version; of an older one only the primary and the right to make schemas can tell. Errors: ErrNoSchema, ErrNewerSchema, ErrPreRelease, and those of the
// database.
func (m *Migrator) Validate(ctx context.Context) ([]Difference, error) {
	different, err := m.validate(ctx)
	if err != nil {
		return nil, fmt.Errorf("validate schema %q: %w", m.schema, err)
	}
	return different, nil
}

func (m *Migrator) validate(ctx context.Context) ([]Difference, error) {
	has, err := m.look(ctx)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read its version: %w", err)
	case has.version == 0:
		return nil, fmt.Errorf("%w: create them with Up, or: sqlq migrate up", ErrNoSchema)
	case has.version > migrations.Latest():
		return nil, fmt.Errorf("%w: it has version %d, this program knows %d; use a newer sqlq", ErrNewerSchema, has.version, migrations.Latest())
	}
	conn, err := pgx.ConnectConfig(ctx, m.config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	want, err := m.made(ctx, conn, has.version)
	if err != nil {
		return nil, err
	}
	var have shape
	err = undone(ctx, conn, func(tx pgx.Tx) (err error) {
		have, err = shapeOf(ctx, tx, m.schema)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	return compare(want, have), nil
}

// made returns the shape of what the migrations up to a version make: read from a schema that is made for it and rolled back, so
// that it is what this server makes of them; where nothing can be made, the stored shape of the newest version.
func (m *Migrator) made(ctx context.Context, conn *pgx.Conn, version int64) (want shape, err error) {
	pattern := fmt.Sprintf("sqlq_validate_%016x", rand.Uint64())
	script, err := ScriptBetween(pattern, 0, version)
	if err != nil {
		return want, err
	}
	// The first migrations know no queues.
	script += fmt.Sprintf(`DO $$ BEGIN PERFORM %s('%s'); EXCEPTION WHEN undefined_function THEN END $$;`, pgx.Identifier{pattern, "create_queue"}.Sanitize(), exampleQueue)
	err = undone(ctx, conn, func(tx pgx.Tx) error {
		if _, err := conn.PgConn().Exec(ctx, script).ReadAll(); err != nil {
			return m.noPattern(err)
		}
		if want, err = shapeOf(ctx, tx, pattern); err != nil {
			return fmt.Errorf("read what the migrations make: %w", err)
		}
		return nil
	})
	if errors.Is(err, errNoPattern) && version == migrations.Latest() {
		return storedShape()
	}
	return want, err
}

// undone runs f in a transaction that is rolled back.
func undone(ctx context.Context, conn *pgx.Conn, f func(pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	return errors.Join(f(tx), tx.Rollback(context.WithoutCancel(ctx)))
}

// errNoPattern says that no schema can be made here to compare with.
var errNoPattern = errors.New("the schema is not of this program's version, and nothing can be made here to compare with")

// noPattern says why there is nothing to compare with, and where there would be.
func (m *Migrator) noPattern(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "25006": // read_only_sql_transaction
			return fmt.Errorf("%w, as on a standby; connect to the primary, whose schema is the same: %w", errNoPattern, err)
		case "42501": // insufficient_privilege
			return fmt.Errorf("%w: role %q needs for that: GRANT CREATE ON DATABASE %s TO %s: %w", errNoPattern,
				m.config.User, pgx.Identifier{m.config.Database}.Sanitize(), pgx.Identifier{m.config.User}.Sanitize(), err)
		}
	}
	return fmt.Errorf("create a schema to compare with: %w", err)
}

func compare(want, have shape) (different []Difference) {
	note := func(want, have map[place]string, named func(string) string) {
		places := maps.Clone(want)
		maps.Copy(places, have)
		for p := range places {
			if want[p] != have[p] {
				different = append(different, Difference{named(p.object), named(want[p]), named(have[p])})
			}
		}
	}
	note(want.lines, have.lines, func(text string) string { return text })
	for queue, lines := range have.queues {
		note(want.queues[exampleQueue], lines, func(text string) string {
			return strings.NewReplacer("q_*", "q_"+queue, "k_*", "k_"+queue, "s_*", "s_"+queue).Replace(text)
		})
	}
	slices.SortFunc(different, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Want+a.Have, b.Want+b.Have))
	})
	return different
}
