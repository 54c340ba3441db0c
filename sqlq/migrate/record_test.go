package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

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

// A schema of a release before the first one is refused by everything that looks at it, with what to do, and is left as it is;
// whichever name its record has. Beside it another schema can be made.
func TestPreReleaseIsRefused(t *testing.T) {
	t.Parallel()
	fixture, err := os.ReadFile("../../testdata/prerelease/record.sql")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]string{
		"the last one":   ``,
		"half-way":       `DELETE FROM sqlq.sqlq_migration WHERE version_id > 6`,
		"goose's name":   `DELETE FROM sqlq.sqlq_migration WHERE version_id > 4; ALTER TABLE sqlq.sqlq_migration RENAME TO goose_db_version`,
		"without record": `DELETE FROM sqlq.sqlq_migration WHERE version_id > 0`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Empty(t)
			conn := connect(t, url)
			if _, err := conn.PgConn().Exec(t.Context(), string(fixture)+change).ReadAll(); err != nil {
				t.Fatal(err)
			}
			before := describe(t, conn, "sqlq")
			m := migrator(t, url, "sqlq")
			_, up := m.Up(t.Context())
			if name == "without record" { // the first migration finds the tables
				if up == nil || !strings.Contains(up.Error(), "a release before the first") {
					t.Errorf("Up: %v", up)
				}
				return
			}
			_, down := m.Down(t.Context(), 0)
			_, status := m.Status(t.Context())
			_, validate := m.Validate(t.Context())
			for what, err := range map[string]error{"Up": up, "Down": down, "Status": status, "Validate": validate} {
				if !errors.Is(err, migrate.ErrPreRelease) || !strings.Contains(err.Error(), `DROP SCHEMA "sqlq" CASCADE and migrate up again, or use another schema`) {
					t.Errorf("%s: %v, want ErrPreRelease and what to do", what, err)
				}
			}
			_, open := sqlq.Open(t.Context(), openPool(t, url), sqlq.Config{})
			if !errors.Is(open, sqlq.ErrSchemaOutdated) || !strings.Contains(open.Error(), "DROP SCHEMA") || !strings.Contains(open.Error(), "sqlq migrate up --schema sqlq") {
				t.Errorf("Open: %v, want ErrSchemaOutdated and what to do", open)
			}
			sameLines(t, describe(t, conn, "sqlq"), before, "the schema after it", "before")
			if err := migrate.Up(t.Context(), url, "other"); err != nil {
				t.Errorf("Up in another schema: %v", err)
			}
			exec(t, conn, `DROP SCHEMA sqlq CASCADE`)
			if err := migrate.Up(t.Context(), url, "sqlq"); err != nil {
				t.Errorf("Up after the schema was dropped: %v", err)
			}
		})
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
