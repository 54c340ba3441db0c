package migrate

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/migrations"
)

// Script returns the SQL that creates the schema from nothing, for psql or another migration tool. It also writes the rows
// that goose would have recorded, because the library reads the schema's version there.
func Script(schema string) (string, error) { return ScriptBetween(schema, 0, migrations.Latest()) }

// ScriptBetween returns the SQL that brings the schema from one version to another, 0 for none: up or, if to is the lower
// one, down, which drops tables with the messages in them. Like Script it keeps goose's record. Run the script in one transaction, so
// that it changes nothing if the schema has another version than from.
func ScriptBetween(schema string, from, to int64) (string, error) {
	if err := checkSchemaName(schema); err != nil {
		return "", err
	}
	first, latest := migrations.First(), migrations.Latest()
	for _, version := range []int64{from, to} {
		if version != 0 && (version < first || version > latest) {
			return "", fmt.Errorf("script from version %d to %d: there are only versions 0 and %d to %d", from, to, first, latest)
		}
	}
	all, err := files()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	name := pgx.Identifier{schema}.Sanitize()
	fmt.Fprintf(&b, "-- sqlq schema, from version %d to %d. Run it in one transaction: psql -1 -v ON_ERROR_STOP=1 -f this_file\n", from, to)
	if from == 0 {
		fmt.Fprintf(&b, "CREATE SCHEMA IF NOT EXISTS %s;\n", name)
	}
	// Not SET LOCAL: outside of a transaction it does nothing, and the tables would end up in another schema.
	fmt.Fprintf(&b, "DO $$ BEGIN PERFORM set_config('sqlq.search_path', current_setting('search_path'), false); END $$;\nSET search_path = %s;\n", name)
	if from == 0 {
		// A schema that was rolled back has the record already.
		b.WriteString(`CREATE TABLE IF NOT EXISTS sqlq_migration (` + recordColumns + `);
INSERT INTO sqlq_migration (version_id, is_applied) SELECT 0, true WHERE NOT EXISTS (SELECT FROM sqlq_migration);
`)
	} else {
		fmt.Fprintf(&b, `DO $$
DECLARE
    have bigint := (SELECT max(version_id) FROM sqlq_migration WHERE is_applied);
BEGIN
    IF have IS DISTINCT FROM %d THEN
        RAISE EXCEPTION 'the schema has version %%, and this script starts from %d', have;
    END IF;
END $$;
`, from, from)
	}
	if to < from {
		slices.Reverse(all)
	}
	for _, f := range all {
		switch {
		case f.version > from && f.version <= to:
			fmt.Fprintf(&b, "\n-- %s\n%sINSERT INTO sqlq_migration (version_id, is_applied) VALUES (%d, true);\n", f.name, f.up, f.version)
		case f.version <= from && f.version > to:
			fmt.Fprintf(&b, "\n-- %s, back\n%sDELETE FROM sqlq_migration WHERE version_id = %d;\n", f.name, f.down, f.version)
		}
	}
	b.WriteString("\nDO $$ BEGIN PERFORM set_config('search_path', current_setting('sqlq.search_path'), false); END $$;\n")
	return b.String(), nil
}

// file is a migration as plain SQL.
type file struct {
	version  int64
	name     string
	up, down string
}

// files returns the migrations in order.
func files() (all []file, err error) {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("migration %s has no number: %w", name, err)
		}
		up, down, _ := strings.Cut(string(text), "-- +goose Down")
		all = append(all, file{version, name, plain(up), plain(down)})
	}
	return all, nil
}

// plain removes goose's annotations.
func plain(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "-- +goose") {
			b.WriteString(line)
		}
	}
	return b.String()
}
