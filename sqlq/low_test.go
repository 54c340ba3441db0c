package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// lowHouse runs an endpoint that counts what it handles, and returns the means to send by hand and to wait.
func lowHouse(t *testing.T) (c *sqlq.Client, pool *pgxpool.Pool, handled chan int) {
	t.Helper()
	pool = newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c = open(t, pool, sqlq.Config{Routes: choreRoute})
	handled = make(chan int, 100_000)
	run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		handled <- d.Message.N
		return nil
	})})
	return c, pool, handled
}

// insertChore is what a sender does, in whatever transaction.
const insertChore = `INSERT INTO sqlq.q_house (id, type, body) VALUES (sqlq.uuid_v7(), 'house.Chore', convert_to(json_build_object('N', $1::int)::text, 'UTF8'))`

func sendN(t *testing.T, c *sqlq.Client, from, n int) {
	t.Helper()
	var ms []sqlq.Message
	for i := range n {
		ms = append(ms, chore{N: from + i})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, handled chan int, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("message %d handled", want), func() (bool, string) {
		for {
			select {
			case n := <-handled:
				if n == want {
					return true, ""
				}
			default:
				return false, "others only"
			}
		}
	})
}

// lowReaches waits until low has been raised to at least n, sending now and then so that there is a reason to.
func lowReaches(t *testing.T, c *sqlq.Client, n int64) {
	t.Helper()
	eventually(t, "low is raised", func() (bool, string) {
		low := c.Low("house")
		if low < n {
			sendN(t, c, -1, 1)
		}
		return low >= n, fmt.Sprintf("low is %d, want %d", low, n)
	})
}

func begin(t *testing.T, pool *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := pool.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

func execTx(t *testing.T, tx pgx.Tx, sql string, args ...any) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// A transaction that took a low number and commits after others with higher ones is waited for.
func TestLowWaitsForLongSenders(t *testing.T) {
	t.Parallel()
	c, pool, handled := lowHouse(t)
	sendN(t, c, 0, 10)
	waitFor(t, handled, 9)
	long := begin(t, pool)
	execTx(t, long, insertChore, 1_000_000)
	var seq int64
	if err := long.QueryRow(t.Context(), `SELECT seq FROM sqlq.q_house WHERE convert_from(body, 'UTF8') LIKE '%1000000%'`).Scan(&seq); err != nil {
		t.Fatal(err)
	}
	short := begin(t, pool)
	execTx(t, short, insertChore, 1_000_001)
	sendN(t, c, 2000, 500)
	waitFor(t, handled, 2499)
	eventually(t, "raising low waits", func() (bool, string) { return c.Awaited("house") >= 1, fmt.Sprint(c.Awaited("house")) })
	for round := range 3 {
		sendN(t, c, 3000+1000*round, 500)
		waitFor(t, handled, 3499+1000*round)
		if low := c.Low("house"); low >= seq {
			t.Fatalf("low is %d although number %d has not committed", low, seq)
		}
	}
	if err := short.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := long.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	sendN(t, c, -1, 1) // an INSERT by hand wakes nobody
	waitFor(t, handled, 1_000_000)
	lowReaches(t, c, seq+1)
}

// So is a prepared transaction, which holds the table's lock without a session.
func TestLowWaitsForPreparedTransactions(t *testing.T) {
	t.Parallel()
	c, pool, handled := lowHouse(t)
	sendN(t, c, 0, 10)
	waitFor(t, handled, 9)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	name := "low_" + sqlq.NewID().String()
	for _, sql := range []string{`BEGIN`, `INSERT INTO sqlq.q_house (id, type, body) VALUES (sqlq.uuid_v7(), 'house.Chore', '{"N":77}')`, `PREPARE TRANSACTION '` + name + `'`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	low := c.Low("house")
	eventually(t, "raising low waits for it", func() (bool, string) {
		sendN(t, c, 2000, 1)
		return c.Awaited("house") >= 1, fmt.Sprint(c.Awaited("house"))
	})
	for round := range 3 {
		sendN(t, c, 3000+1000*round, 500)
		waitFor(t, handled, 3499+1000*round)
	}
	if got := c.Low("house"); got > 10 {
		t.Errorf("low went from %d to %d past a prepared transaction with number 11", low, got)
	}
	execSQL(t, pool, `COMMIT PREPARED '`+name+`'`)
	sendN(t, c, -1, 1) // as above
	waitFor(t, handled, 77)
	lowReaches(t, c, 1000)
}

// A transaction that has nothing to do with the queue keeps nobody.
func TestLowDoesNotWaitForOthers(t *testing.T) {
	t.Parallel()
	c, pool, handled := lowHouse(t)
	execSQL(t, pool, `CREATE TABLE other (n int)`)
	other := begin(t, pool)
	execTx(t, other, `INSERT INTO other VALUES (1)`)
	execTx(t, other, `SELECT count(*) FROM sqlq.q_house`)
	sendN(t, c, 0, 500)
	waitFor(t, handled, 499)
	lowReaches(t, c, 500)
}

// A message that somebody held and freed again, by rolling back, is found although others were handled since.
func TestLowLeavesRolledBackReceives(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	sendN(t, c, 0, 1000)
	holder := begin(t, pool)
	execTx(t, holder, `SELECT FROM sqlq.q_house WHERE seq = 7 FOR UPDATE`)
	handled := make(chan int, 100_000)
	run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		handled <- d.Message.N
		return nil
	})})
	for round := range 3 {
		sendN(t, c, 3000+1000*round, 500)
		waitFor(t, handled, 3499+1000*round)
	}
	if low := c.Low("house"); low >= 7 {
		t.Errorf("low is %d although message 7 waits", low)
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	sendN(t, c, 9000, 1) // nobody says that a row has become free; the next fetch finds it
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
}

// What is put below low by hand is found by the scan from zero, which the poll brings about.
func TestLowIsNeverATruth(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, PollInterval: 200_000_000})
	handled := make(chan int, 100_000)
	run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		handled <- d.Message.N
		return nil
	})})
	sendN(t, c, 0, 1000)
	waitFor(t, handled, 999)
	lowReaches(t, c, 1000)
	execSQL(t, pool, `INSERT INTO sqlq.q_house (seq, id, type, body) OVERRIDING SYSTEM VALUE VALUES (3, sqlq.uuid_v7(), 'house.Chore', '{"N":33}')`)
	waitFor(t, handled, 33)
}

// A sequence that was set back, as by a crash or a failover, makes low begin anew.
func TestLowNoticesASequenceThatWasSetBack(t *testing.T) {
	t.Parallel()
	c, pool, handled := lowHouse(t)
	sendN(t, c, 0, 1000)
	waitFor(t, handled, 999)
	lowReaches(t, c, 1000)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	execSQL(t, pool, `SELECT setval(pg_get_serial_sequence('sqlq.q_house', 'seq'), 5)`)
	// A crash ends every connection; here it is the receivers' and the keeper's.
	execSQL(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'sqlq %' AND datname = current_database()`)
	sendN(t, c, 7000, 3)
	waitFor(t, handled, 7002)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
}

// A process that starts begins where others have found that messages can be, unless the sequence was set back since.
func TestLowIsKept(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	handled := make(chan int, 100_000)
	start := func() (*sqlq.Client, func()) {
		c := open(t, pool, sqlq.Config{Routes: choreRoute})
		return c, run(t, c, sqlq.Endpoint{Name: "house", Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
			handled <- d.Message.N
			return nil
		})})
	}
	kept := func() int { return count(t, pool, `SELECT low FROM sqlq.queue`) }
	c, stop := start()
	if n := sqlq.LastValue(t, pool, "house"); n != 0 {
		t.Errorf("a fresh sequence has given out %d", n)
	}
	sendN(t, c, 0, 12_000)
	waitFor(t, handled, 11_999)
	lowReaches(t, c, 12_000)
	eventually(t, "low is kept", func() (bool, string) { return kept() >= 10_000, fmt.Sprint(kept()) })
	sendN(t, c, 12_000, 11_000)
	waitFor(t, handled, 22_999)
	lowReaches(t, c, 23_000)
	stop() // within the time after which it is kept again
	if n := kept(); n < 23_000 {
		t.Errorf("a process that ends keeps %d", n)
	}

	c, stop = start()
	sendN(t, c, 40_000, 1)
	waitFor(t, handled, 40_000)
	if low := c.Low("house"); low < 23_000 {
		t.Errorf("a process that starts looks from %d", low)
	}
	stop()

	execSQL(t, pool, `SELECT setval(pg_get_serial_sequence('sqlq.q_house', 'seq'), 5)`)
	c, _ = start()
	sendN(t, c, 50_000, 1)
	waitFor(t, handled, 50_000)
	if n := kept(); n != 0 {
		t.Errorf("%d is still kept", n)
	}
}

// The plan of a fetch or settle goes by the primary key, or straight to the rows, whatever the statistics say.
func TestFetchUsesThePrimaryKey(t *testing.T) {
	t.Parallel()
	for name, statistics := range map[string][2]string{
		"statistics say empty":  {`ANALYZE sqlq.q_house`, `INSERT INTO sqlq.q_house (id, type, body) SELECT gen_random_uuid(), 'house.Chore', '{}' FROM generate_series(1, 300000)`},
		"statistics say filled": {`INSERT INTO sqlq.q_house (id, type, body) SELECT gen_random_uuid(), 'house.Chore', '{}' FROM generate_series(1, 300000); ANALYZE sqlq.q_house`, `DELETE FROM sqlq.q_house`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
			execSQL(t, pool, `ALTER TABLE sqlq.q_house SET (autovacuum_enabled = off)`)
			for _, sql := range statistics {
				if _, err := pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatal(err)
				}
			}
			for _, plan := range sqlq.FetchPlans(t, pool, "house") {
				direct := strings.Contains(plan, "Index Scan using k_house") || strings.Contains(plan, "Tid Scan on q_house")
				if !direct || strings.Contains(plan, "Seq Scan") {
					t.Error(plan)
				}
			}
		})
	}
}

// A sequence that somebody sets back while the endpoint sleeps, as a test suite does that empties all tables, costs the
// messages that come after it no waiting: one, and several in a row.
func TestSequenceSetBackWhileAsleep(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]int{"after one message": 1, "after many": 500} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, pool, handled := lowHouse(t)
			sendN(t, c, 1, before)
			lowReaches(t, c, int64(before))
			for round := range 3 {
				eventually(t, "asleep", func() (bool, string) { return asleep(t, pool, "sqlq", "house") == 1, "" })
				execSQL(t, pool, `TRUNCATE sqlq.q_house RESTART IDENTITY`)
				<-time.After(50 * time.Millisecond) // what comes now is no echo of what was there
				for n := range 3 {
					at := time.Now()
					want := 1_000*(round+1) + n
					if err := c.Send(t.Context(), chore{N: want}); err != nil {
						t.Fatal(err)
					}
					waitFor(t, handled, want)
					if took := time.Since(at); took > 5*time.Second {
						t.Errorf("round %d: message %d took %v", round, n, took)
					}
				}
			}
		})
	}
}
