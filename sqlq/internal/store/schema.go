package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrHidden is returned by Version when row security hides the record from this role.
var ErrHidden = errors.New("row security is on for the record of migrations, and hides it from this role")

// Version returns the schema's version as goose recorded it, and whether there is such a record at all: under its name or, in a
// schema of the earliest releases before the first, the one that it had then. Takes nothing; locks nothing.
func (s *Schema) Version(ctx context.Context, db DBTX) (version int64, exists bool, err error) {
	// The table is looked up first: naming a missing one is an error that would end a caller's transaction.
	var former, hidden bool
	own, old := s.table("sqlq_migration"), s.table("goose_db_version")
	err = db.QueryRow(ctx, `
		SELECT to_regclass($1::text) IS NOT NULL, to_regclass($2::text) IS NOT NULL AND to_regclass($3::text) IS NOT NULL,
			coalesce(row_security_active(to_regclass($1::text)::oid), false)`, own, old, s.table("instance")).Scan(&exists, &former, &hidden)
	table := own
	if !exists && former {
		table, exists = old, true
	}
	if err != nil || !exists {
		return 0, false, err
	}
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT coalesce(max(version_id), 0) FROM (
			SELECT DISTINCT ON (version_id) version_id, is_applied FROM %s ORDER BY version_id, id DESC
		) v WHERE is_applied`, table)).Scan(&version)
	if err == nil && version == 0 && hidden {
		err = ErrHidden
	}
	return version, version > 0, err
}

// OldestLibrary returns the oldest programs that a schema newer than this program still serves, by the version of the schema that
// they were made for. Takes nothing; locks nothing.
func (s *Schema) OldestLibrary(ctx context.Context, db DBTX) (version int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s()`, s.table("oldest_library"))).Scan(&version)
	return version, err
}

// Encodings returns the encodings of the database and of the connection. Locks nothing.
func (s Sessions) Encodings(ctx context.Context, db DBTX) (server, client string, err error) {
	err = db.QueryRow(ctx, `SELECT current_setting('server_encoding'), current_setting('client_encoding')`).Scan(&server, &client)
	return server, client, err
}

// Identity tells a schema from those of other databases and servers. It changes when the server restarts. Locks nothing.
func (s *Schema) Identity(ctx context.Context, db DBTX) (id string, err error) {
	err = db.QueryRow(ctx, `
		SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), d.oid, to_regclass($1::text)::oid)
		FROM pg_database d WHERE d.datname = current_database()`, s.table("instance")).Scan(&id)
	return id, err
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

// MayReceive says whether a queue's table exists, and whether this role may receive from it. Locks nothing.
func (s Queues) MayReceive(ctx context.Context, db DBTX, queue string) (exists, may bool, err error) {
	err = db.QueryRow(ctx, `
		SELECT t IS NOT NULL, coalesce(has_table_privilege(t, 'SELECT') AND has_table_privilege(t, 'DELETE'), false)
		FROM (SELECT to_regclass($1::text)) q (t)`, s.ready(queue)).Scan(&exists, &may)
	return exists, may, err
}

// Hidden is a queue whose messages row security may hide from this role.
type Hidden struct {
	Queue    string
	Policies bool // some policy lets the role see rows; which, only they know
}

// Hidden appends those of the queues to into for whose tables row security is on and concerns this role. Without a
// policy for it every look finds nothing, without an error. Locks nothing.
func (s Queues) Hidden(b *pgx.Batch, queues []string, into *[]Hidden) {
	tables := make([]string, len(queues))
	for i, q := range queues {
		tables[i] = s.ready(q)
	}
	b.Queue(`
		SELECT q.name, EXISTS (
			SELECT FROM pg_policy p, unnest(p.polroles) r (oid)
			WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*') AND p.polpermissive
				AND CASE WHEN r.oid = 0 THEN true ELSE pg_has_role(r.oid, 'USAGE') END
		) FROM unnest($1::text[], $2::text[]) q (name, ready) JOIN pg_class c ON c.oid = to_regclass(q.ready)
		WHERE c.relrowsecurity AND row_security_active(c.oid) ORDER BY q.name`, queues, tables).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Hidden])
		*into = append(*into, all...)
		return err
	})
}
