package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// Open refuses a database, and connections, that would change text on its way, and says which of them.
func TestOpenRefusesEncodings(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	latin := poolWith(t, url, func(config *pgxpool.Config) { config.ConnConfig.RuntimeParams["client_encoding"] = "LATIN1" })
	if _, err := sqlq.Open(t.Context(), latin, sqlq.Config{}); !errors.Is(err, sqlq.ErrEncoding) || !strings.Contains(err.Error(), "client_encoding LATIN1") {
		t.Errorf("client_encoding: %v, want ErrEncoding", err)
	}
	name := fmt.Sprintf("latin1_%.20x", sqlq.NewID())
	execSQL(t, admin, `CREATE DATABASE `+name+` TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'`)
	t.Cleanup(func() { execSQL(t, admin, `DROP DATABASE `+name+` WITH (FORCE)`) })
	pool := poolWith(t, url, func(config *pgxpool.Config) { config.ConnConfig.Database = name })
	// As a release made it that did not look.
	execSimple(t, pool, `CREATE SCHEMA sqlq; CREATE TABLE sqlq.sqlq_migration (id int GENERATED ALWAYS AS IDENTITY, version_id bigint, is_applied boolean)`)
	var latest int64
	if err := admin.QueryRow(context.Background(), `SELECT max(version_id) FROM sqlq.sqlq_migration`).Scan(&latest); err != nil {
		t.Fatal(err)
	}
	execSQL(t, pool, `INSERT INTO sqlq.sqlq_migration (version_id, is_applied) VALUES ($1, true)`, latest)
	if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{}); !errors.Is(err, sqlq.ErrEncoding) || !strings.Contains(err.Error(), "the encoding LATIN1") {
		t.Errorf("the database: %v, want ErrEncoding", err)
	}
}
