package migrate_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/migrations"
)

func upWithGoose(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	config.RuntimeParams["search_path"] = "sqlq" // the files name no schema, and neither does goose's record
	db := stdlib.OpenDB(*config)
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE SCHEMA IF NOT EXISTS sqlq`); err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName("sqlq_migration"))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// A goose of somebody's own makes what Up makes; the function is the one of docs/migrations.md.
func TestGoose(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	if err := upWithGoose(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	m := migrator(t, url, "sqlq")
	if steps, err := m.Up(t.Context()); err != nil || len(steps) > 0 {
		t.Errorf("Up after it: %v, %v", steps, err)
	}
	exec(t, connect(t, url), `SELECT sqlq.create_queue('sales')`)
	if different, err := m.Validate(t.Context()); err != nil || len(different) > 0 {
		t.Errorf("Validate: %v, %+v", different, err)
	}
	page, err := os.ReadFile("../../docs/migrations.md")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("goose_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(page), "```go\n")
	code, _, _ = strings.Cut(code, "```\n")
	if code == "" || !strings.Contains(string(own), code) {
		t.Errorf("this is not the function of docs/migrations.md:\n%s", code)
	}
}
