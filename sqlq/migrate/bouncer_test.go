package migrate_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// Through a transaction pooler no setting of a session holds, and PgBouncer refuses to be told the search_path at the start.
func TestThroughBouncer(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	direct := connect(t, url)
	b := bouncer.Start(t, url, bouncer.Options{Settings: []string{"server_round_robin = 1", "min_pool_size = 3"}})
	for _, mode := range []string{"cache_statement", "exec", "simple_protocol"} {
		config, err := pgx.ParseConfig(b.URL(direct.Config().Database, "default_query_exec_mode="+mode))
		if err != nil {
			t.Fatal(err)
		}
		m, err := migrate.New(config, `An "odd" name `+mode)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for range 2 {
			if _, err := m.Up(t.Context()); err != nil {
				t.Fatalf("%s: %v", mode, err)
			}
			states, err := m.Status(t.Context())
			if err != nil || states[len(states)-1].AppliedAt.IsZero() {
				t.Fatalf("%s: status %v, %v", mode, states, err)
			}
			if _, err := m.Down(t.Context(), 0); err != nil {
				t.Fatalf("%s: %v", mode, err)
			}
		}
	}
	var strewn int
	err := direct.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`).Scan(&strewn)
	if err != nil || strewn != 0 {
		t.Errorf("%d objects in the schema public (%v), want none", strewn, err)
	}
}

// A pooler with a single connection to the server has none for the migrations while the first waits, which must not hang.
func TestThroughBouncerWithOneConnection(t *testing.T) {
	t.Parallel()
	url := pgtest.Empty(t)
	direct := connect(t, url)
	b := bouncer.Start(t, url, bouncer.Options{PoolSize: 1})
	m := migrator(t, b.URL(direct.Config().Database), "sqlq")
	m.SetPatience(100 * time.Millisecond)
	if _, err := m.Up(t.Context()); !errors.Is(err, migrate.ErrOneConnection) {
		t.Fatalf("Up: %v, want ErrOneConnection", err)
	}
	if left := texts(t, direct, `SELECT nspname FROM pg_namespace WHERE nspname = 'sqlq'`); len(left) > 0 {
		t.Error("Up has made the schema")
	}
	if err := migrate.Up(t.Context(), url, "sqlq"); err != nil {
		t.Fatal(err)
	}
	// Looking needs one.
	if states, err := m.Status(t.Context()); err != nil || states[0].AppliedAt.IsZero() {
		t.Errorf("Status: %v, %v", states, err)
	}
	if different, err := m.Validate(t.Context()); err != nil || len(different) > 0 {
		t.Errorf("Validate: %v, %v", different, err)
	}
}
