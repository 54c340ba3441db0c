package migrate_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// Where nothing can be made to compare with, as on a standby or without the right to, Validate says what to do.
func TestValidateWhereNothingCanBeMade(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := connect(t, url)
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
	for want, change := range map[string]func(*pgx.ConnConfig){
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
		if _, err := m.Validate(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
