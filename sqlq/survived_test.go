package sqlq_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// A message under suspicion whose handler has returned is not blamed for what kills the process before it is settled: in the time that
// a settle takes on a busy machine another message could be the killer, and that three times in a row. So others of the endpoint
// wait until it is settled or, if that takes long, until what was counted against it is taken back.
func TestSurvivedSuspectIsNotBlamed(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	execSQL(t, pool, `CREATE TABLE unsettled AS SELECT 1`)
	execSQL(t, pool, `
		CREATE FUNCTION settle_waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF EXISTS (SELECT FROM public.unsettled) THEN
				RAISE EXCEPTION USING ERRCODE = 'lock_not_available';
			END IF;
			RETURN NULL;
		END $$`)
	execSQL(t, pool, `CREATE TRIGGER settle_waits BEFORE DELETE ON sqlq.leased FOR EACH STATEMENT EXECUTE FUNCTION settle_waits()`)
	execSQL(t, pool, `
		INSERT INTO sqlq.q_house (id, sent_at, attempt, type, headers, body)
		VALUES (sqlq.uuid_v7(), now() - interval '1 minute', 1, 'house.Chore', '{"sqlq-crashes":"1"}', '{"N":1}')`)

	seen := make(chan string, 100)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		var is string
		err := pool.QueryRow(ctx, `
			SELECT coalesce(max(attempt || ' attempts, ' || substring(headers::text FROM '.*"sqlq-crashes":"([0-9]+)"') || ' crashes'), 'settled')
			FROM sqlq.leased WHERE headers::text LIKE '%sqlq-crashes%'`).Scan(&is)
		seen <- fmt.Sprintf("%d: %s", d.Message.N, is)
		return err
	})})
	if is := <-seen; is != "1: 2 attempts, 2 crashes" {
		t.Errorf("while its handler runs it has %s", is)
	}
	sendN(t, c, 2, 1)
	if is := <-seen; is != "2: 1 attempts, 1 crashes" {
		t.Errorf("before it was settled another message ran, %s", is)
	}
	execSQL(t, pool, `DELETE FROM unsettled`)
	eventually(t, "settled", func() (bool, string) {
		n := count(t, pool, `SELECT count(*) FROM sqlq.leased`) + count(t, pool, `SELECT count(*) FROM sqlq.q_house`)
		return n == 0, fmt.Sprint(n, " left")
	})
}
