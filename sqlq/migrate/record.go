package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The record of sqlq's migrations is the table sqlq_migration. Until schema version 8 it was goose_db_version, which is the
// name that goose gives to everybody's: in a schema that an application migrates with goose too, one was taken for the other.

// ErrForeignRecord is returned by Up and Down when a schema with sqlq's tables has no record of sqlq's own, and it cannot be
// told whether its goose_db_version is sqlq's alone. The error says what to do.
var ErrForeignRecord = errors.New("the record of migrations may be another program's")

// recordTable is the record's name, and formerRecord the one that it had.
const (
	recordTable  = "sqlq_migration"
	formerRecord = "goose_db_version"
)

// ownTables are tables by which a schema is known to be sqlq's, and the version that made them.
const ownTables = `(VALUES ('queue', 1), ('delayed', 1), ('leased', 1), ('error', 1), ('subscription', 1), ('instance', 1),
        ('ready', 2), ('operation', 3), ('history', 3), ('traffic', 3), ('inbox', 4))`

// adopt renames the former record if it is provably sqlq's: it has each version from 0 on exactly once and no other, and the
// tables of those versions, and of no others, are there. Privileges go with it. Without sqlq's tables it is left alone. The
// schema is the search_path.
const adopt = `DO $$
DECLARE
    here text := quote_ident(current_schema());
    have bigint[];
    wanting text[];
BEGIN
    IF to_regclass(here || '.` + recordTable + `') IS NOT NULL OR to_regclass(here || '.` + formerRecord + `') IS NULL
        OR to_regclass(here || '.delayed') IS NULL OR to_regclass(here || '.instance') IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(version_id ORDER BY version_id) INTO have FROM ` + formerRecord + ` WHERE is_applied;
    SELECT array_agg(t.name ORDER BY t.name) INTO wanting FROM ` + ownTables + ` t (name, version)
    WHERE (to_regclass(here || '.' || t.name) IS NOT NULL) <> (t.version = ANY (have));
    IF wanting IS NOT NULL OR EXISTS (SELECT FROM ` + formerRecord + ` WHERE NOT is_applied)
        OR have IS DISTINCT FROM ARRAY(SELECT generate_series(0, least(have[cardinality(have)], 4))) THEN
        RAISE EXCEPTION 'goose_db_version has the versions %, which are not those of sqlq''s tables in this schema (%)',
            have, coalesce('it does not fit: ' || array_to_string(wanting, ', '), 'there are others') USING ERRCODE = 'SQ041';
    END IF;
    ALTER TABLE ` + formerRecord + ` RENAME TO ` + recordTable + `;
    ALTER INDEX IF EXISTS ` + formerRecord + `_pkey RENAME TO ` + recordTable + `_pkey;
    ALTER SEQUENCE IF EXISTS ` + formerRecord + `_id_seq RENAME TO ` + recordTable + `_id_seq;
END $$;
`

// foreignRecord is the SQLSTATE with which adopt refuses.
const foreignRecord = "SQ041"

// adoptRecord is adopt in a transaction.
func (m *Migrator) adoptRecord(ctx context.Context) error {
	err := m.inTx(ctx, fmt.Sprintf("SET LOCAL search_path TO %s", pgx.Identifier{m.schema}.Sanitize()), adopt)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == foreignRecord {
		return fmt.Errorf("%w: %s; make a record of its own with the versions that sqlq's tables are of, from 0 on: CREATE TABLE %s (LIKE %s INCLUDING ALL), and INSERT them",
			ErrForeignRecord, pg.Message, pgx.Identifier{m.schema, recordTable}.Sanitize(), pgx.Identifier{m.schema, formerRecord}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("look for the record of migrations: %w", err)
	}
	return nil
}

func (m *Migrator) inTx(ctx context.Context, statements ...string) error {
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// findRecord returns where the record is, for those who only look: under its name or, where nobody has migrated since, the former
// one; "" for nowhere.
func findRecord(ctx context.Context, db *sql.DB, schema string) (table string, err error) {
	own, former, delayed := recordIn(schema), record{pgx.Identifier{schema, formerRecord}.Sanitize()}, pgx.Identifier{schema, "delayed"}.Sanitize()
	err = db.QueryRowContext(ctx, `
		SELECT CASE WHEN to_regclass($1::text) IS NOT NULL THEN $1::text
			WHEN to_regclass($2::text) IS NOT NULL AND to_regclass($3::text) IS NOT NULL THEN $2::text ELSE '' END`,
		own.table, former.table, delayed).Scan(&table)
	return table, err
}
