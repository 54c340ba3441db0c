package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
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

// Validate compares the schema with what the migrations up to its version create: tables and their options, columns, keys,
// indexes, triggers, policies, sequences, functions, and the privileges of PUBLIC, for each queue too. Comments and the
// privileges of roles are left out. It creates a second schema to compare with, in a transaction that it rolls back, so it
// needs the privilege to create schemas, and changes nothing. Errors: ErrNoSchema, ErrNewerSchema, ErrPreRelease, and those of the
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
	pattern := fmt.Sprintf("sqlq_validate_%016x", rand.Uint64())
	script, err := ScriptBetween(pattern, 0, has.version)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, m.config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// Before the migration of the queues there is no create_queue.
	script += fmt.Sprintf(`DO $$ BEGIN PERFORM %s('%s'); EXCEPTION WHEN undefined_function THEN END $$;`, pgx.Identifier{pattern, "create_queue"}.Sanitize(), exampleQueue)
	if _, err := conn.PgConn().Exec(ctx, script).ReadAll(); err != nil {
		return nil, m.noPattern(err)
	}
	want, err := shapeOf(ctx, tx, pattern)
	if err != nil {
		return nil, fmt.Errorf("read the comparison schema: %w", err)
	}
	have, err := shapeOf(ctx, tx, m.schema)
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	return compare(want, have), nil
}

// noPattern explains why the comparison schema could not be created, and what to do.
func (m *Migrator) noPattern(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "25006": // read_only_sql_transaction
			return fmt.Errorf("the server is read-only, probably a standby, so the schema to compare with cannot be created; connect to the primary, whose schema is the same: %w", err)
		case "42501": // insufficient_privilege
			return fmt.Errorf("create a schema to compare with (it is rolled back), for which role %q needs: GRANT CREATE ON DATABASE %s TO %s: %w",
				m.config.User, pgx.Identifier{m.config.Database}.Sanitize(), pgx.Identifier{m.config.User}.Sanitize(), err)
		}
	}
	return fmt.Errorf("create a schema to compare with: %w", err)
}

// exampleQueue is the queue that all others are compared with.
const exampleQueue = "example"

// shape describes a schema: a line for each place in it.
type shape struct {
	lines  map[place]string
	queues map[string]map[place]string // of each queue, with its name taken out
}

type place struct{ object, part string }

// shapeOf reads the shape of a schema.
func shapeOf(ctx context.Context, tx pgx.Tx, schema string) (shape, error) {
	s, named := shape{map[place]string{}, map[string]map[place]string{}}, map[string]*regexp.Regexp{}
	if _, err := tx.Exec(ctx, `SET LOCAL search_path = `+pgx.Identifier{schema}.Sanitize()); err != nil {
		return s, err
	}
	rows, err := tx.Query(ctx, `SELECT at, text FROM (`+catalogue+`) c WHERE kind IN ('shape', 'body') OR kind = 'grant' AND at[3] = 'PUBLIC'`, schema)
	if err != nil {
		return s, err
	}
	var at []string
	var text string
	_, err = pgx.ForEachRow(rows, []any{&at, &text}, func() error {
		p := place{at[0], strings.Join(at[1:], " ")}
		if words := strings.Fields(text); len(words) > 3 && words[0] == "table" && words[2] == "column" {
			p.part = "column " + words[3] // not its number
		}
		queue, is := queueOf(strings.TrimPrefix(strings.TrimPrefix(at[0], "table "), "sequence "))
		if !is {
			s.lines[p] = text
			return nil
		}
		if s.queues[queue] == nil {
			s.queues[queue] = map[place]string{}
		}
		if named[queue] == nil { // its table, key and sequence, quoted or not
			named[queue] = regexp.MustCompile(fmt.Sprintf(`"([qks])_%[1]s"|\b([qks])_%[1]s`, regexp.QuoteMeta(queue)))
		}
		anonymous := func(text string) string { return named[queue].ReplaceAllString(text, "${1}${2}_*") }
		s.queues[queue][place{anonymous(p.object), anonymous(p.part)}] = anonymous(text)
		return nil
	})
	return s, err
}

// queueOf returns the queue that a table or sequence belongs to.
func queueOf(object string) (queue string, is bool) {
	if queue, is = strings.CutPrefix(object, "q_"); !is {
		queue, is = strings.CutPrefix(object, "s_")
	}
	return queue, is
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
