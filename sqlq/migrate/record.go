package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/migrations"
)

// ErrPreRelease is returned by all methods of a Migrator when the schema was made by a pre-release, whose migrations were
// different. The error says what to do.
var ErrPreRelease = errors.New("the schema was made by a release before the first one, and cannot be migrated")

// recordTable is goose's record, formerRecord that of the earliest pre-releases.
const (
	recordTable  = "sqlq_migration"
	formerRecord = "goose_db_version"
)

// versions is what the record says about a schema.
type versions struct {
	recorded bool  // whether there is a record
	version  int64 // the highest one applied; 0: none
	oldest   int64 // the version of the oldest program that a newer schema serves; 0: the schema is not newer
}

// look reads the record, and refuses the schema of a pre-release.
func (m *Migrator) look(ctx context.Context) (v versions, err error) {
	var former bool
	own := recordIn(m.schema)
	err = m.db.QueryRowContext(ctx, `
		SELECT to_regclass($1::text) IS NOT NULL, to_regclass($1::text) IS NULL AND to_regclass($2::text) IS NOT NULL
			AND to_regclass($3::text) IS NOT NULL AND to_regclass($4::text) IS NOT NULL AND to_regclass($5::text) IS NOT NULL`,
		own.table, m.name(formerRecord), m.name("delayed"), m.name("leased"), m.name("subscription")).Scan(&v.recorded, &former)
	if err != nil {
		return v, err
	}
	if v.recorded {
		err = m.db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+own.table+` WHERE is_applied`).Scan(&v.version)
	}
	if err == nil && v.version > migrations.Latest() {
		err = m.db.QueryRowContext(ctx, `SELECT `+m.name("oldest_library")+`()`).Scan(&v.oldest)
	}
	if err == nil && (former || v.version > 0 && v.version < migrations.First()) {
		return v, fmt.Errorf("%w: let its programs handle what is waiting, or export it with that release; then DROP SCHEMA %s CASCADE and migrate up again, or use another schema",
			ErrPreRelease, m.name())
	}
	return v, err
}

// refuseNewer refuses a schema newer than this program, whether or not it serves this program.
func (v versions) refuseNewer(schema string) error {
	if latest := migrations.Latest(); v.version > latest {
		return fmt.Errorf("%w: schema %q has version %d, this program knows %d; use a newer sqlq", ErrNewerSchema, schema, v.version, latest)
	}
	return nil
}

// name returns a quoted name in the schema, or the quoted name of the schema itself.
func (m *Migrator) name(in ...string) string {
	return pgx.Identifier(append([]string{m.schema}, in...)).Sanitize()
}
