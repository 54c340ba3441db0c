package query

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// GrantRole gives a role what a kind of role has, of the named queues or, with nil, of all; it may subscribe them to the named
// events or, with nil, to any. Runs as the owner of the schema; takes the advisory lock of queue DDL.
func (s roleQueries) GrantRole(ctx context.Context, db DBTX, role, kind string, queues []string, bodies bool, events []string) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`SELECT %s($1::text::name, $2::text, $3::text[], $4::boolean, $5::text[])`, s.table("grant_role")), role, kind, queues, bodies, events)
	return err
}

// GrantRoleSQL is the statement that GrantRole runs, for tools that run it themselves.
func (s roleQueries) GrantRoleSQL(role, kind string, queues []string, bodies bool, events []string) string {
	sql := fmt.Sprintf(`SELECT %s(%s, %s`, s.table("grant_role"), literal(role), literal(kind))
	if queues != nil {
		sql += `, ` + literals(queues)
	}
	if bodies {
		sql += `, bodies => true`
	}
	if events != nil {
		sql += `, events => ` + literals(events)
	}
	return sql + `);`
}

// RevokeRole takes what GrantRole gave: with nil everything, else what is on the tables of the named queues.
func (s roleQueries) RevokeRole(ctx context.Context, db DBTX, role string, queues []string) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`SELECT %s($1::text::name, $2::text[])`, s.table("revoke_role")), role, queues)
	return err
}

// RevokeRoleSQL is the statement that RevokeRole runs.
func (s roleQueries) RevokeRoleSQL(role string, queues []string) string {
	sql := fmt.Sprintf(`SELECT %s(%s`, s.table("revoke_role"), literal(role))
	if queues != nil {
		sql += `, ` + literals(queues)
	}
	return sql + `);`
}

// literal writes a string for people to read and run: plain where it can be.
func literal(v string) string {
	if strings.ContainsRune(v, '\\') {
		return quote(v)
	}
	return strings.TrimPrefix(quote(v), "E")
}

func literals(values []string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = literal(v)
	}
	return `ARRAY[` + strings.Join(all, ", ") + `]::text[]`
}

// Roles returns the names of the roles of the server, those that it makes itself left out.
func (s roleQueries) Roles(ctx context.Context, db DBTX) ([]string, error) {
	rows, err := db.Query(ctx, `SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Privilege is something that a role may do.
type Privilege struct {
	Kind    string // of role: producer, consumer, operator or viewer
	AllOnly bool   // only those of the kind have it who have all queues
	Name    string // SELECT, INSERT, …
	On      string // "schema", "table", "column", "sequence" or "function"
	Object  string // name of the table, sequence or function; q_* and s_* are the tables and sequences of the queues
	Column  string // of a column
}

// Privileges are what grant_role gives to each kind of role; what viewers have besides who may see bodies is left out.
var Privileges = parsePrivileges()

// A line of grants.txt is a privilege: the kind of role; any, or all where only those have it who have all queues; the
// privilege; and what it is on. A test of package ops fails where the file differs from what grant_role does, and writes it
// with -update.
//
//go:embed grants.txt
var grantsFile string

func parsePrivileges() (all []Privilege) {
	for line := range strings.Lines(grantsFile) {
		words := strings.Fields(line)
		if len(words) != 5 {
			continue
		}
		p := Privilege{Kind: words[0], AllOnly: words[1] == "all", Name: words[2], On: words[3], Object: words[4]}
		if p.On == "column" {
			p.Object, p.Column, _ = strings.Cut(p.Object, ".")
		}
		all = append(all, p)
	}
	return all
}

// Lacking is a privilege that a role has not; of one on q_* or s_* the queues that it lacks it for.
type Lacking struct {
	Privilege
	Queues []string
}

// Lacks returns which privileges this role has not, directly, as a member of other roles or as the owner. Those on
// queues are looked up for the named queues, with nil for all that there are.
func (s roleQueries) Lacks(ctx context.Context, db DBTX, wanted []Privilege, queues []string) ([]Lacking, error) {
	n := len(wanted)
	names, ons, objects, columns := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, p := range wanted {
		names[i], ons[i], objects[i], columns[i] = p.Name, p.On, p.Object, p.Column
	}
	// A privilege on an object that is not there is not lacking: migrations are another matter.
	rows, err := db.Query(ctx, `
		WITH wanted AS (
			SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY w (privilege, kind, object, col, n)
		), space AS (
			SELECT oid FROM pg_namespace WHERE nspname = $1::text
		), queue AS (
			SELECT substr(c.relname, 3) AS name FROM pg_class c, space
			WHERE c.relnamespace = space.oid AND c.relkind = 'r' AND left(c.relname, 2) = 'q_' AND ($6::text[] IS NULL OR substr(c.relname, 3) = ANY ($6::text[]))
		), each AS (
			SELECT w.n, w.privilege, w.kind, w.col, NULL::text AS queue, w.object FROM wanted w WHERE right(w.object, 1) <> '*'
			UNION ALL
			SELECT w.n, w.privilege, w.kind, w.col, q.name, left(w.object, 2) || q.name FROM wanted w, queue q WHERE right(w.object, 1) = '*'
		), asked AS (
			SELECT e.n, e.queue, CASE e.kind
				WHEN 'schema' THEN has_schema_privilege(space.oid, e.privilege)
				WHEN 'function' THEN (SELECT bool_and(has_function_privilege(p.oid, e.privilege)) FROM pg_proc p WHERE p.pronamespace = space.oid AND p.proname = e.object)
				WHEN 'sequence' THEN has_sequence_privilege(c.oid, e.privilege)
				WHEN 'table' THEN has_table_privilege(c.oid, e.privilege)
				WHEN 'column' THEN (SELECT has_column_privilege(c.oid, a.attnum, e.privilege) FROM pg_attribute a
					WHERE a.attrelid = c.oid AND a.attname = e.col AND NOT a.attisdropped)
				END AS may
			FROM each e CROSS JOIN space LEFT JOIN pg_class c ON c.relnamespace = space.oid AND c.relname = e.object
				AND c.relkind = CASE e.kind WHEN 'sequence' THEN 'S'::"char" ELSE 'r'::"char" END
		)
		SELECT n::int, coalesce(array_agg(queue ORDER BY queue) FILTER (WHERE queue IS NOT NULL), '{}')
		FROM asked WHERE NOT may GROUP BY n ORDER BY n`, s.Name(), names, ons, objects, columns, queues)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Lacking, err error) {
		var n int
		if err = row.Scan(&n, &l.Queues); err == nil {
			l.Privilege = wanted[n-1]
		}
		return l, err
	})
}
