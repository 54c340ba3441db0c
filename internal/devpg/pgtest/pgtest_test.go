package pgtest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func schemas(t *testing.T, conn *pgx.Conn) (n int) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_namespace WHERE nspname = $1`, pgtest.Schema).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Many concurrent tests each get their own database.
func TestDatabasesAtOnce(t *testing.T) {
	var got sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			url := pgtest.Database(t)
			if _, twice := got.LoadOrStore(url, true); twice {
				t.Errorf("%s was given out twice", url)
			}
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(t.Context())
			if n := schemas(t, conn); n != 1 {
				t.Error("the database is not migrated")
			}
		})
	}
	all.Wait()
}

func TestEmpty(t *testing.T) {
	conn := connect(t, pgtest.Empty(t))
	defer conn.Close(t.Context())
	if schemas(t, conn) != 0 {
		t.Error("the database is not empty")
	}
}

// At the end of its test a database is dropped, whatever the test has left in it.
func TestDatabaseIsDropped(t *testing.T) {
	var url string
	for _, left := range []string{"nothing", "a session", "a prepared transaction", "no database"} {
		t.Run(left, func(t *testing.T) {
			url = pgtest.Database(t)
			conn := connect(t, url)
			switch left {
			case "nothing":
				conn.Close(t.Context())
			case "a session":
				exec(t, conn, `BEGIN`)
			case "a prepared transaction":
				exec(t, conn, `BEGIN`)
				exec(t, conn, `CREATE TABLE kept (a int)`)
				exec(t, conn, `PREPARE TRANSACTION 'it''s left'`)
				conn.Close(t.Context())
			case "no database":
				name := conn.Config().Database
				conn.Close(t.Context())
				server := connect(t, pgtest.Server(t).URL(""))
				exec(t, server, fmt.Sprintf(`DROP DATABASE %s`, name))
				server.Close(t.Context())
			}
		})
		conn, err := pgx.Connect(context.Background(), url)
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Code != "3D000" {
			if err == nil {
				conn.Close(context.Background())
			}
			t.Errorf("after a test that left %s: %v", left, err)
		}
	}
}

func BenchmarkDatabase(b *testing.B) {
	pgtest.Database(b) // the server and the template
	for b.Loop() {
		pgtest.Database(b)
	}
}
