package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// upBefore makes a schema as it was when its record had goose's own name.
func upBefore(t *testing.T, url, schema string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["search_path"] = pgx.Identifier{schema}.Sanitize()
	db := stdlib.OpenDB(*config)
	defer db.Close()
	exec(t, connect(t, url), `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{schema}.Sanitize())
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
}

// versionOf returns what a table of goose's has recorded.
func versionOf(t *testing.T, conn *pgx.Conn, table string) string {
	t.Helper()
	return strings.Join(texts(t, conn, `SELECT version_id::text FROM `+table+` ORDER BY version_id`), " ")
}

// An application that migrates its own tables with goose, in the schema that sqlq's are to be in, keeps its record.
func TestSchemaOfAnApplicationThatUsesGoose(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	own := fstest.MapFS{}
	for n := range 5 {
		own[fmt.Sprintf("%05d_own.sql", n+1)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE own%d ();\n-- +goose Down\nDROP TABLE own%[1]d;\n", n)}
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, fs.FS(own))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := migrator(t, url, "public")
	for range 2 {
		if states, err := m.Status(t.Context()); err != nil || !states[0].AppliedAt.IsZero() {
			t.Errorf("Status before Up: %+v, %v", states, err)
		}
		if _, err := m.Up(t.Context()); err != nil {
			t.Fatal(err)
		}
		if different, err := m.Validate(t.Context()); err != nil || strings.Contains(fmt.Sprint(different), "delayed") {
			t.Errorf("Validate: %+v, %v", different, err)
		}
		pool := openPool(t, url)
		if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{Schema: "public"}); err != nil {
			t.Error(err)
		}
		if got := versionOf(t, conn, "public.goose_db_version"); got != "0 1 2 3 4 5" {
			t.Errorf("the application's record has %s", got)
		}
		if _, err := m.Down(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if results, err := provider.DownTo(t.Context(), 0); err != nil || len(results) != 5 {
		t.Errorf("the application's way down: %v, %v", results, err)
	}
}

// A schema whose record has the former name is looked at there, and migrating renames it: what was granted on it stays.
func TestFormerRecordIsAdopted(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	role := fmt.Sprintf("record_%x", sqlq.NewID())[:60]
	exec(t, conn, `CREATE ROLE `+role)
	t.Cleanup(func() {
		for _, sql := range []string{`DROP OWNED BY `, `DROP ROLE `} {
			if _, err := conn.Exec(context.Background(), sql+role); err != nil {
				t.Error(err)
			}
		}
	})
	latest := migrations.Latest()
	for schema, up := range map[string]func(m *migrate.Migrator) error{
		"sqlq": func(m *migrate.Migrator) error { _, err := m.Up(t.Context()); return err },
		"Weird schema": func(*migrate.Migrator) error {
			script, err := migrate.ScriptBetween("Weird schema", 4, latest)
			if err == nil {
				_, err = conn.PgConn().Exec(t.Context(), "BEGIN;"+script+";COMMIT").ReadAll()
			}
			return err
		},
	} {
		upBefore(t, url, schema)
		exec(t, conn, fmt.Sprintf(`SELECT %s($1, 'viewer')`, qualified(schema, "grant_role")), role)
		m := migrator(t, url, schema)
		if states, err := m.Status(t.Context()); err != nil || states[3].AppliedAt.IsZero() || !states[len(states)-1].AppliedAt.IsZero() {
			t.Errorf("%s: Status before: %+v, %v", schema, states, err)
		}
		if _, err := sqlq.Open(t.Context(), openPool(t, url), sqlq.Config{Schema: schema}); !errors.Is(err, sqlq.ErrSchemaOutdated) {
			t.Errorf("%s: Open before: %v, want ErrSchemaOutdated", schema, err)
		}
		if err := up(m); err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		if steps, err := m.Up(t.Context()); err != nil || len(steps) > 0 {
			t.Errorf("%s: Up after it: %v, %v", schema, steps, err)
		}
		if different, err := m.Validate(t.Context()); err != nil || len(different) > 0 {
			t.Errorf("%s: Validate: %+v, %v", schema, different, err)
		}
		if may := texts(t, conn, `SELECT has_table_privilege($1::text, $2::text, 'SELECT')::text`, role, qualified(schema, "sqlq_migration")); may[0] != "true" {
			t.Errorf("%s: the role may not read the record any more", schema)
		}
		exec(t, conn, fmt.Sprintf(`SELECT %s($1), %s($1, 'consumer')`, qualified(schema, "revoke_role"), qualified(schema, "grant_role")), role)
		if left := texts(t, conn, `SELECT relname FROM pg_class WHERE relname = 'goose_db_version' AND relnamespace = $1::text::regnamespace`, pgx.Identifier{schema}.Sanitize()); len(left) > 0 {
			t.Errorf("%s: the former record is left", schema)
		}
	}
}

// A record that may be another program's too is not taken for sqlq's: nothing is changed, and the error says what to do.
func TestForeignRecordIsRefused(t *testing.T) {
	t.Parallel()
	for _, foreign := range []string{
		`INSERT INTO public.goose_db_version (version_id, is_applied) VALUES (20260101, true)`,
		`INSERT INTO public.goose_db_version (version_id, is_applied) VALUES (2, true)`,
		`DELETE FROM public.goose_db_version WHERE version_id = 4`,
		`DROP TABLE public.history`,
	} {
		url := pgtest.Empty(t)
		conn := connect(t, url)
		upBefore(t, url, "public")
		exec(t, conn, foreign)
		before := versionOf(t, conn, "public.goose_db_version")
		m := migrator(t, url, "public")
		if _, err := m.Up(t.Context()); !errors.Is(err, migrate.ErrForeignRecord) || !strings.Contains(err.Error(), `CREATE TABLE "public"."sqlq_migration"`) {
			t.Errorf("%s: Up: %v, want ErrForeignRecord", foreign, err)
		}
		if _, err := m.Down(t.Context(), 0); !errors.Is(err, migrate.ErrForeignRecord) {
			t.Errorf("%s: Down: %v, want ErrForeignRecord", foreign, err)
		}
		if got := versionOf(t, conn, "public.goose_db_version"); got != before {
			t.Errorf("%s: the record has %s, before %s", foreign, got, before)
		}
	}
}

// A database whose encoding lacks characters is refused before anything is made; one that takes bytes as they are is not.
func TestEncodings(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	conn := connect(t, url)
	for encoding, refused := range map[string]bool{"LATIN1": true, "EUC_JP": true, "SQL_ASCII": false} {
		config := conn.Config()
		config.Database = "encoding_" + strings.ToLower(encoding) + "_" + strings.ReplaceAll(fmt.Sprint(sqlq.NewID()), "-", "")[:16]
		exec(t, conn, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'`, config.Database, encoding))
		t.Cleanup(func() {
			if _, err := conn.Exec(context.Background(), `DROP DATABASE `+config.Database+` WITH (FORCE)`); err != nil {
				t.Error(err)
			}
		})
		m, err := migrate.New(config, "sqlq")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Up(t.Context()); errors.Is(err, migrate.ErrEncoding) != refused || !refused && err != nil {
			t.Errorf("%s: Up: %v", encoding, err)
		}
		if states, err := m.Status(t.Context()); err != nil || states[0].AppliedAt.IsZero() != refused {
			t.Errorf("%s: afterwards %+v, %v", encoding, states, err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
