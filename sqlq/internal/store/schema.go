package store

import (
	"context"
	"errors"
	"fmt"
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

// Identity tells a schema from those of other databases and servers. It changes when the server restarts. Locks nothing.
func (s *Schema) Identity(ctx context.Context, db DBTX) (id string, err error) {
	err = db.QueryRow(ctx, `
		SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), d.oid, to_regclass($1::text)::oid)
		FROM pg_database d WHERE d.datname = current_database()`, s.table("instance")).Scan(&id)
	return id, err
}
