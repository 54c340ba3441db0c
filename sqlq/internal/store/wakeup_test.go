package store

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

var cancelSends = flag.Int("cancel.sends", 300, "statements that each of four connections has cancelled")

// A send that is cancelled, wherever it is at that moment, leaves no lock behind: neither the SQL function nor the statement of
// the Go library.
func TestCancelledSendLeavesNoLock(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"SQL function": `SELECT sqlq.send('work', 'test.Cancelled', '{}') FROM generate_series(1, 1000)`,
		"Go library":   `SELECT ` + New("sqlq").asleep("work") + ` FROM generate_series(1, 100000)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			admin, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close(context.Background())
			if _, err := admin.Exec(t.Context(), `SELECT sqlq.create_queue('work')`); err != nil {
				t.Fatal(err)
			}
			var cancelled atomic.Int64
			var all sync.WaitGroup
			for range 4 {
				conn, err := pgx.Connect(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close(context.Background()) })
				all.Go(func() { cancelled.Add(cancelSome(t, conn, sql, *cancelSends)) })
			}
			all.Wait()
			var locks int
			if err := admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks
				WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&locks); err != nil {
				t.Fatal(err)
			}
			if locks != 0 {
				t.Errorf("%d locks are left after %d cancelled statements", locks, cancelled.Load())
			}
			t.Logf("%d statements were cancelled", cancelled.Load())
		})
	}
}

// cancelSome runs a statement that takes many milliseconds n times, each with another limit of the server on its time, and
// returns how often it was cancelled.
func cancelSome(t *testing.T, conn *pgx.Conn, sql string, n int) (cancelled int64) {
	for i := range n {
		// The limit may cancel its own setting, too; then that of the statement before counts.
		_, _ = conn.Exec(context.Background(), fmt.Sprintf(`SET statement_timeout = %d`, 1+i%3))
		_, err := conn.Exec(context.Background(), sql)
		if err != nil && conn.IsClosed() {
			t.Error("the connection was lost with the statement, so nothing is seen: ", err)
			return cancelled
		}
		if err != nil {
			cancelled++
		}
	}
	return cancelled
}

// A poll leaves no prepared statement with the session: each choice of queues would be one more.
func TestWaitingPreparesNothing(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `SELECT sqlq.create_queue(q), sqlq.send('a', 'T', '1') FROM unnest(ARRAY['a', 'b']) q`); err != nil {
		t.Fatal(err)
	}
	for _, queues := range [][]string{{"a", "b"}, {"b", "a"}, {"b"}} {
		waiting, err := New("sqlq").Tables.Waiting(t.Context(), conn, queues)
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range queues {
			if waiting[i] != (q == "a") {
				t.Errorf("of %v %v wait", queues, waiting)
			}
		}
	}
	var n int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%ARRAY[EXISTS%' AND statement NOT LIKE '%pg_prepared%'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%d statements are prepared", n)
	}
}
