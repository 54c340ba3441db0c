package migrate_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// Where nothing can be made to compare with, as on a standby or without the right to, Validate compares a schema of the newest
// version with what is stored, and says of an older one what to do.
func TestValidateWhereNothingCanBeMade(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
	exec(t, conn, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['Sales', 'billing']) q`)
	role := "validates_" + strings.TrimLeft(conn.Config().Database, "_")
	exec(t, conn, `CREATE ROLE `+role+` LOGIN PASSWORD 'secret'`)
	t.Cleanup(func() {
		for _, sql := range []string{`DROP OWNED BY `, `DROP ROLE `} {
			if _, err := conn.Exec(context.Background(), sql+role); err != nil {
				t.Error(err)
			}
		}
	})
	exec(t, conn, `GRANT USAGE ON SCHEMA sqlq TO `+role)
	exec(t, conn, `GRANT SELECT ON sqlq.sqlq_migration TO `+role)
	limited := map[string]*migrate.Migrator{}
	for remedy, change := range map[string]func(*pgx.ConnConfig){
		"connect to the primary":     func(c *pgx.ConnConfig) { c.RuntimeParams["default_transaction_read_only"] = "on" },
		`GRANT CREATE ON DATABASE "`: func(c *pgx.ConnConfig) { c.User, c.Password = role, "secret" },
	} {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		change(config)
		m, err := migrate.New(config, "sqlq")
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		limited[remedy] = m
	}
	differ := func(n int) {
		t.Helper()
		for remedy, m := range limited {
			if different, err := m.Validate(t.Context()); err != nil || len(different) != n {
				t.Errorf("where one would %s: %d differences, want %d: %v %v", remedy, len(different), n, different[:min(3, len(different))], err)
			}
		}
	}
	differ(0)
	exec(t, conn, `ALTER TABLE sqlq.delayed ADD COLUMN odd int; ALTER TABLE sqlq."q_Sales" RESET (fillfactor), SET (autovacuum_enabled = off)`)
	differ(2)
	if _, err := migrator(t, url, "sqlq").Down(t.Context(), migrations.Latest()-1); err != nil {
		t.Fatal(err)
	}
	for remedy, m := range limited {
		if _, err := m.Validate(t.Context()); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("of an older version: got %v, want %q", err, remedy)
		}
	}
}
