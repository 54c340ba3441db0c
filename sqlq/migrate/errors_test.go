package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// Each error says what happened, where, and what to do.
func TestErrorsAreWords(t *testing.T) {
	t.Parallel()
	ctx, empty, url := t.Context(), pgtest.Empty(t), pgtest.Database(t)
	newer := connect(t, url)
	exec(t, newer, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) VALUES ($1, true)`, migrations.Latest()+1)
	servesNewer(t, newer)
	exec(t, connect(t, empty), `CREATE SCHEMA taken`)
	exec(t, connect(t, empty), `CREATE TABLE taken.delayed ()`)

	role := fmt.Sprintf("words_%x", sqlq.NewID())
	exec(t, newer, `CREATE ROLE `+role+` LOGIN PASSWORD 'secret'`)
	t.Cleanup(func() {
		if _, err := newer.Exec(context.Background(), `DROP ROLE `+role); err != nil {
			t.Error(err)
		}
	})
	config, err := pgx.ParseConfig(empty)
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = role, "secret"
	limited, err := migrate.New(config, "sqlq")
	if err != nil {
		t.Fatal(err)
	}
	defer limited.Close()

	up := func(m *migrate.Migrator) error { _, err := m.Up(ctx); return err }
	validate := func(m *migrate.Migrator) error { _, err := m.Validate(ctx); return err }
	script := func(from, to int64) error { _, err := migrate.ScriptBetween("sqlq", from, to); return err }
	for _, c := range []struct {
		what string
		err  error
		kind error // nil: none that a caller can name
		text string
	}{
		{"no connection string", migrate.Up(ctx, "postgres://u:secret@h:port/d", "sqlq"), nil, "migrate schema \"sqlq\" up: invalid connection string: cannot parse `postgres://u:xxxxx@h:port/d`: invalid port"},
		{"no name", migrate.Up(ctx, empty, ""), nil, `no schema is named; name one, sqlq's default is "sqlq"`},
		{"a long name", migrate.Up(ctx, empty, strings.Repeat("s", 64)), nil, fmt.Sprintf(`schema name %q has 64 bytes, and PostgreSQL would cut it to 63; use a shorter one`, strings.Repeat("s", 64))},
		{"a name of PostgreSQL's", migrate.Up(ctx, empty, "pg_temp"), nil, `schema name "pg_temp" is not allowed, because it has a special meaning in PostgreSQL; use one that does not begin with pg_ or $`},
		{"a newer schema", up(migrator(t, url, "sqlq")), migrate.ErrNewerSchema, `migrate schema "sqlq" up: the schema is newer than this program: schema "sqlq" has version N+1, this program knows N; use a newer sqlq`},
		{"validate a newer schema", validate(migrator(t, url, "sqlq")), migrate.ErrNewerSchema, `validate schema "sqlq": the schema is newer than this program: it has version N+1, this program knows N; use a newer sqlq`},
		{"validate nothing", validate(migrator(t, empty, "sqlq")), migrate.ErrNoSchema, `validate schema "sqlq": the schema has no sqlq tables: create them with Up, or: sqlq migrate up`},
		{"a role that may not", up(limited), nil, `migrate schema "sqlq" up: create schema "sqlq" (have the owner of database "DATABASE" run: GRANT CREATE ON DATABASE "DATABASE" TO "ROLE"): ERROR: permission denied for database DATABASE (SQLSTATE 42501)`},
		{"a table in the way", up(migrator(t, empty, "taken")), nil, `migrate schema "taken" up: 00013_messages.sql failed and changed nothing (earlier migrations stay applied; fix the cause and migrate again): ERROR: relation "delayed" already exists (SQLSTATE 42P07)`},
		{"versions that are none", script(0, 99), nil, `script from version 0 to 99: there are only versions 0 and 11 to N`},
	} {
		if c.err == nil || c.kind != nil && !errors.Is(c.err, c.kind) {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.kind)
			continue
		}
		text := strings.NewReplacer(config.Database, "DATABASE", role, "ROLE",
			fmt.Sprintf("version %d", migrations.Latest()+1), "version N+1", fmt.Sprintf("knows %d", migrations.Latest()), "knows N",
			fmt.Sprintf("11 to %d", migrations.Latest()), "11 to N").Replace(c.err.Error())
		if text != c.text {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, text, c.text)
		}
	}
}
