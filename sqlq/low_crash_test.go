package sqlq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// A server that crashes may come back with a sequence that has given out less than before: nothing below is overlooked then.
func TestLowAfterACrash(t *testing.T) {
	t.Parallel()
	server, err := devpg.Start(t.Context(), devpg.Options{InMemory: true, Settings: map[string]string{
		"full_page_writes": "on",                               // so that it can recover
		"wal_writer_delay": "10s", "synchronous_commit": "off", // so that there is something to lose:
		"wal_writer_flush_after": "1GB", "wal_buffers": "64MB", "bgwriter_lru_maxpages": "0", // it stays in the server's own memory
		"autovacuum": "off",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := migrate.Up(t.Context(), server.URL("postgres"), "sqlq"); err != nil {
		t.Fatal(err)
	}
	pool := poolOn(t, server.URL("postgres"))
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	execSQL(t, pool, `CHECKPOINT`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, PollInterval: time.Hour})
	handled := make(chan int, 100_000)
	run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		handled <- d.Message.N
		return nil
	})})
	for try := range 2 {
		first := 10_000 * (try + 1)
		sendN(t, c, first, 5000)
		waitFor(t, handled, first+4999)
		lowReaches(t, c, sqlq.LastValue(t, pool, "house"))
		before := sqlq.LastValue(t, pool, "house")
		crash(t, server, pool)
		// Now and then the server's own writers have saved everything just before. That failovers set sequences back is sure, and
		// tested in internal/torture/failover.
		t.Logf("the sequence was at %d before the crash, and is at %d", before, sqlq.LastValue(t, pool, "house"))
		sendN(t, c, first+6000, 3)
		waitFor(t, handled, first+6002)
		eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	}
}

// crash has the server crash and come back.
func crash(t *testing.T, server *devpg.Server, pool *pgxpool.Pool) {
	t.Helper()
	if err := server.Crash(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	eventually(t, "the server answers", func() (bool, string) {
		err := pool.Ping(t.Context())
		return err == nil, fmt.Sprint(err)
	})
}
