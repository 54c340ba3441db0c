package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Sessions are the connections of the role, and what the server grants and does to them.
type Sessions struct{ base }

// SetSession sets settings of the session, but for those that the server does not know.
func SetSession(ctx context.Context, db DBTX, names, values []string) error {
	_, err := db.Exec(ctx, `
		SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) s (name, value)
		WHERE current_setting(name, true) IS NOT NULL`, names, values)
	return err
}

// Look is how much of a session SessionState looks at.
type Look int

const (
	LookQuick     Look = iota // the named settings, and whether there have ever been temporary objects: some 20 µs
	LookTemporary             // and whether there are any, in a session that was another's before: some 50 µs
	LookThorough              // and all settings that the session has changed: some 0.3 ms
	LookWhole                 // and what is not a setting and outlasts a transaction

	Looks = iota // how many there are
)

// StateSeparator stands between the values in a text that SessionState makes: those of the named settings come first.
const StateSeparator = "\x1f"

// SessionState returns an SQL expression, a text: what of the session and transaction a statement may have changed. A setting
// that does not exist counts as an empty one. lock_timeout and the planner's settings that the library changes itself
// are in it only where they are named. Temporary objects are found by pg_depend's index on what is referred to.
func SessionState(names []string, look Look) string {
	// One call with an argument for each name takes half the time of a loop over an array of them.
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = `coalesce(current_setting('` + name + `', true), '')`
	}
	state := `concat_ws(E'\x1f', ` + strings.Join(values, ", ") + `, pg_my_temp_schema())`
	if look >= LookTemporary { // a statement that may look at a table costs something even where it does not
		state += `
		|| (pg_my_temp_schema() <> 0 AND EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = pg_my_temp_schema()))`
	}
	if look >= LookThorough {
		state += `
		|| E'\x1f' || (SELECT coalesce(string_agg(name || '=' || setting, ',' ORDER BY name), '') FROM pg_settings
			WHERE source = 'session' AND name NOT IN ('enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'plan_cache_mode', 'lock_timeout'))`
	}
	if look >= LookWhole {
		state += `
		|| E'\x1f' || (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)
		|| E'\x1f' || (SELECT count(*) FROM pg_cursors WHERE is_holdable)
		|| E'\x1f' || (SELECT count(*) FROM pg_listening_channels())
		|| E'\x1f' || (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')`
	}
	return state
}

// ReadState has into set to a state: see SessionState.
func ReadState(b *pgx.Batch, state string, into *string) {
	b.Queue(`SELECT ` + state).QueryRow(func(row pgx.Row) error { return row.Scan(into) })
}

// RequireState makes the transaction fail if a state is not want any more, and sets changed then. After that it selects what else
// is given, a list with its parameters from $1 on, which costs less than a statement of its own. Locks nothing.
func RequireState(b *pgx.Batch, state, want, also string, args []any, changed *bool) {
	b.Queue(fmt.Sprintf(`
		SELECT CASE WHEN s.state IS DISTINCT FROM $%d THEN (left(s.state, 0) || 'handlers have changed the session')::int END, %s
		FROM (SELECT %s AS state) s`, len(args)+1, also, state), append(args, want)...).Query(func(rows pgx.Rows) error {
		rows.Close()
		err := rows.Err()
		*changed = err != nil
		return err
	})
}

// RestoreSettings gives settings the values that they had, in the order given, for the session, so far as they have others now.
func RestoreSettings(b *pgx.Batch, names, values []string) {
	b.Queue(`
		SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) s (name, value)
		WHERE coalesce(current_setting(name, true), value) <> value`, names, values)
}

// SettingsInFunctions returns the names of custom settings that functions of this database, other than the server's own and the
// schema's, set by set_config or SET; those that this role may not read are left out. Locks nothing; reads all of pg_proc.
func (s Sessions) SettingsInFunctions(ctx context.Context, db DBTX) (names []string, err error) {
	rows, err := db.Query(ctx, `
		SELECT DISTINCT lower(m[1]) FROM pg_proc p
		JOIN pg_language l ON l.oid = p.prolang AND l.lanname IN ('sql', 'plpgsql'),
			regexp_matches(p.prosrc, '(?:set_config\s*\(\s*''|\mset\s+(?:local\s+|session\s+)?)([a-z_][a-z0-9_$]*(?:\.[a-z_][a-z0-9_$]*)+)', 'gi') m
		WHERE p.oid >= 16384 AND p.pronamespace <> to_regnamespace(quote_ident($1::text)) -- from there on objects are users' own
		ORDER BY 1 LIMIT 100`, s.name)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range found {
		var value *string
		if db.QueryRow(ctx, `SELECT current_setting($1, true)`, name).Scan(&value) == nil {
			names = append(names, name)
		}
	}
	return names, err
}

// End ends sessions of this role that name themselves as application, and waits up to a second for each to be
// gone, with its locks.
func (s Sessions) End(ctx context.Context, db DBTX, application string, pids []int32) error {
	_, err := db.Exec(ctx, `
		SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
		WHERE pid = ANY ($1::int[]) AND application_name = $2 AND usename = current_user AND datname = current_database()`, pids, application)
	return err
}

// Encodings returns the encodings of the database and of the connection. Locks nothing.
func (s Sessions) Encodings(ctx context.Context, db DBTX) (server, client string, err error) {
	err = db.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('client_encoding')`).Scan(&server, &client)
	return server, client, err
}

// Capacity is what the server lets this role have.
type Capacity struct {
	Connections int // the smallest of the limits below, less what is reserved for superusers
	Limit       string
}

// Capacity returns how many connections this role can open to this database at most, and which limit says so: the role that
// logged in, whatever SET ROLE has made of it. Takes nothing; locks nothing.
func (s Sessions) Capacity(ctx context.Context, db DBTX) (Capacity, error) {
	var c Capacity
	err := db.QueryRow(ctx, `
		SELECT n, what FROM (
			SELECT current_setting('max_connections')::int
				- CASE WHEN r.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int
					+ coalesce(current_setting('reserved_connections', true)::int, 0) END AS n, 'max_connections' AS what
			FROM pg_roles r WHERE r.rolname = session_user
			UNION ALL
			SELECT rolconnlimit, 'the role''s CONNECTION LIMIT' FROM pg_roles WHERE rolname = session_user AND NOT rolsuper AND rolconnlimit >= 0
			UNION ALL
			SELECT d.datconnlimit, 'the database''s CONNECTION LIMIT' FROM pg_database d, pg_roles r
			WHERE d.datname = current_database() AND r.rolname = session_user AND NOT r.rolsuper AND d.datconnlimit >= 0
		) limits ORDER BY n LIMIT 1`).Scan(&c.Connections, &c.Limit)
	return c, err
}
