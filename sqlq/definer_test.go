package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// trap makes, in a session, temporary tables that bear the names of tables of the schema, with triggers that tell whom they run as.
func trap(t *testing.T, conn *pgxpool.Conn, queues ...string) {
	t.Helper()
	statements := []string{
		`CREATE FUNCTION pg_temp.took() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''it ran as %'', current_user; END'`,
	}
	for _, q := range queues {
		statements = append(statements, fmt.Sprintf(`CREATE TEMPORARY TABLE q_%s (seq bigint GENERATED ALWAYS AS IDENTITY, id uuid, sent_at timestamptz,
			expires_at timestamptz DEFAULT '2020-01-01', attempt smallint, type text, headers json, body bytea)`, q),
			fmt.Sprintf(`INSERT INTO q_%s DEFAULT VALUES`, q), trapOn("q_"+q))
	}
	for _, ab := range []string{"a", "b"} {
		tab := "inbox_minutes_" + ab
		statements = append(statements, fmt.Sprintf(`CREATE TEMPORARY TABLE %[1]s (at timestamptz DEFAULT clock_timestamp(), id uuid, instance integer, queue text,
			CONSTRAINT %[1]s_pkey PRIMARY KEY (id, queue))`, tab), fmt.Sprintf(`INSERT INTO %s VALUES (now(), '%s', 7, 'mine')`, tab, trapID), trapOn(tab))
	}
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

const trapID = "0198c0de-0000-7000-8000-000000000001"

func trapOn(table string) string {
	return fmt.Sprintf(`CREATE TRIGGER took BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION pg_temp.took()`, table)
}

// What runs as the owner while a table of the schema is dropped does not do to a temporary table of the caller's, which
// bears that name, what it meant for the other: neither when the statement waits for the drop, nor when the caller's snapshot is
// older than it.
func TestDroppedTableIsNotTheCallers(t *testing.T) {
	t.Parallel()
	const claim, settle = `SELECT * FROM sqlq.claim_messages('mine', ARRAY['` + trapID + `']::uuid[], '5 minutes', 7)`,
		`SELECT sqlq.settle_claims('mine', '5 minutes', ARRAY['` + trapID + `']::uuid[], '{}', '{}', true, 7)`
	for _, c := range []struct{ kind, table, call string }{
		{"consumer", "q_gone", `SELECT sqlq.move_due('-infinity', 100)`},
		{"operator", "q_gone", `SELECT sqlq.move_due('-infinity', 100)`},
		{"consumer", "q_gone", `SELECT sqlq.move_due('-infinity', 1)`},
		{"consumer", "q_gone", `SELECT sqlq.recover_leased()`},
		{"operator", "q_gone", `SELECT sqlq.recover_leased()`},
		{"consumer", "q_gone", `SELECT sqlq.sweep_expired('gone', 0, 100)`},
		{"consumer", "inbox_minutes_a", claim},
		{"consumer", "inbox_minutes_b", claim},
		{"consumer", "inbox_minutes_a", settle},
		{"consumer", "inbox_minutes_b", settle},
		{"consumer", "s_gone", `SELECT sqlq.read_traffic()`},
	} {
		for _, old := range []bool{false, true} {
			t.Run(strings.NewReplacer("SELECT ", "", "sqlq.", "", "'", "").Replace(fmt.Sprintf("%s/%s/%v/%s", c.kind, c.table, old, c.call)), func(t *testing.T) {
				t.Parallel()
				url := pgtest.Database(t)
				admin := twoQueues(t, url)
				execSQL(t, admin, `SELECT sqlq.create_queue('gone')`)
				execSQL(t, admin, `INSERT INTO sqlq.delayed (due_at, id, why, queue, type, body) VALUES (now(), gen_random_uuid(), 'delay', 'gone', 'T', '{}')`)
				execSQL(t, admin, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (-1, 'gone', 1, gen_random_uuid(), now(), 0, 'T', '{}')`)
				conn, err := granted(t, url, c.kind, "mine").Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Release()
				trap(t, conn, "gone")
				dropped, err := admin.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer dropped.Rollback(context.Background())
				drop := fmt.Sprintf(`DROP TABLE sqlq.%s`, c.table)
				if c.table == "s_gone" {
					drop = `ALTER TABLE sqlq.q_gone ALTER seq DROP IDENTITY`
				}
				level := pgx.ReadCommitted
				if old {
					level = pgx.RepeatableRead
				}
				tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: level})
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Rollback(context.Background())
				if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM pg_class`); err != nil { // its snapshot
					t.Fatal(err)
				}
				if _, err := dropped.Exec(t.Context(), drop); err != nil {
					t.Fatal(err)
				}
				called := make(chan error, 1)
				go func() {
					_, err := tx.Exec(context.Background(), c.call)
					called <- err
				}()
				// Until it waits for the lock, or has given up.
				pid := conn.Conn().PgConn().PID()
				eventually(t, "the call waits for the table or has ended", func() (bool, string) {
					if len(called) > 0 {
						return true, ""
					}
					return count(t, admin, `SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $1`, pid) > 0, "neither"
				})
				if err := dropped.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-called; err != nil && strings.Contains(err.Error(), "it ran as") {
					t.Errorf("a trigger of the caller's: %v", err)
				}
			})
		}
	}
}

// A queue that was dropped after the caller's snapshot was taken is in it as a subscriber still.
func TestDroppedSubscriberIsNotTheCallers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, call string }{
		{"producer", `SELECT sqlq.publish('post.Posted', '1')`},
		{"producer", `SELECT sqlq.publish('post.Posted', '1', delay => '1 second')`},
		{"operator", `SELECT sqlq.publish('post.Posted', '1')`},
		{"producer", `SELECT * FROM sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL::text], ARRAY['1'::bytea], ARRAY[NULL::interval])`},
		{"producer", `SELECT sqlq.publish_batch(ARRAY[sqlq.uuid_v7()], ARRAY['post.Posted'], ARRAY[NULL], ARRAY['1'::bytea], NULL, due_at => ARRAY[now()])`},
		{"consumer", `SELECT sqlq.sweep_expired('theirs', 0, 100)`},
		{"consumer", `SELECT sqlq.read_traffic(), sqlq.forget_history(100)`},
	} {
		t.Run(strings.NewReplacer("SELECT ", "", "sqlq.", "", "'", "").Replace(c.kind+"/"+c.call), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			admin := twoQueues(t, url)
			conn, err := granted(t, url, c.kind, "mine").Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			trap(t, conn, "theirs")
			tx, err := conn.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.Background())
			if _, err := tx.Exec(t.Context(), `SELECT count(*) FROM pg_class`); err != nil {
				t.Fatal(err)
			}
			execSQL(t, admin, `SELECT sqlq.drop_queue('theirs')`)
			_, err = tx.Exec(t.Context(), c.call)
			if err != nil && strings.Contains(err.Error(), "it ran as") {
				t.Errorf("a trigger of the caller's: %v", err)
			}
		})
	}
}
