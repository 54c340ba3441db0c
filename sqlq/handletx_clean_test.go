package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// guest is a command whose handler looks at the session, of another message type than entry and in another endpoint.
type guest struct{ N int }

func (guest) MessageType() string { return "house.Guest" }

// lookAround is what a message could meet of another's.
const lookAround = `INSERT INTO public.seen SELECT concat_ws(' ', current_user, session_user, current_setting('search_path'), coalesce(current_setting('app.tenant', true), ''),
	current_setting('session_replication_role'), current_setting('statement_timeout'), current_setting('transaction_read_only'),
	current_setting('default_transaction_read_only'), current_setting('default_transaction_isolation'), current_setting('timezone'),
	current_setting('datestyle'), current_setting('work_mem'), current_setting('enable_hashjoin'), current_setting('bytea_output'),
	current_setting('idle_in_transaction_session_timeout'), current_setting('row_security'), current_setting('client_min_messages'),
	current_setting('synchronous_commit'), current_setting('jit'),
	(SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
	(SELECT count(*) FROM pg_prepared_statements WHERE from_sql), (SELECT count(*) FROM pg_listening_channels()),
	(SELECT count(*) FROM pg_cursors WHERE name LIKE 'left%'),
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND objid = 4711))`

// disturb runs messages whose handlers do something to the session, all or some of them, among others of the same endpoint, and
// others in another endpoint on the same connection; what those others see must be the same as ever.
func disturb(t *testing.T, prepare string, do func(ctx context.Context, tx pgx.Tx, role string, n int) error) {
	t.Helper()
	pool := newPool(t)
	execSQL(t, pool, `CREATE TABLE ledger (n int NOT NULL); CREATE TABLE seen (state text)`)
	role := "tenant_" + pool.Config().ConnConfig.Database
	execSQL(t, pool, `CREATE ROLE `+role+`; GRANT ALL ON ledger, seen TO PUBLIC`)
	t.Cleanup(func() {
		_, _ = pool.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
	})
	if prepare != "" {
		execSQL(t, pool, prepare)
	}
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['ledger', 'house', 'audit']) q`)
	c := open(t, pool, sqlq.Config{ReceiveConnections: 1, Routes: map[string]string{"ledger.Entry": "ledger", "house.Guest": "house", "audit.Booked": "audit"}})
	watch := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, lookAround)
		return err
	}
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if d.Message.Fail == "" {
				if err := watch(ctx, tx); err != nil {
					return err
				}
			} else if err := do(ctx, tx, role, d.Message.N); err != nil {
				return err
			}
			if d.Message.Fail == "fail" {
				return errors.New("fails")
			}
			_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, d.Message.N)
			if err == nil {
				err = d.Send(booked{d.Message.N})
			}
			return err
		})}}, sqlq.Endpoint{Name: "house", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[guest]) error { return watch(ctx, tx) })}})
	send(t, c, numbered(5)...)
	eventuallyCount(t, pool, 5, `SELECT count(*) FROM ledger`)
	entries := numbered(30)
	failing := 0
	for i := range entries {
		entries[i].N += 100
		switch i % 10 {
		case 3, 4:
			entries[i].Fail = "disturb"
		case 7:
			entries[i].Fail = "fail"
			failing++
		}
	}
	var visits []sqlq.Message
	for i := range 20 {
		visits = append(visits, guest{i})
	}
	send(t, c, entries[:15]...)
	if err := c.SendMany(t.Context(), visits); err != nil {
		t.Fatal(err)
	}
	send(t, c, entries[15:]...)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_ledger) + (SELECT count(*) FROM sqlq.q_house)`)
	stop()
	var states string
	if err := pool.QueryRow(t.Context(), `SELECT string_agg(n || ' of ' || state, E'\n') FROM (SELECT state, count(*) AS n FROM seen GROUP BY 1) s`).Scan(&states); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(states, "\n") {
		t.Errorf("messages saw several states of the session:\n%s", states)
	}
	rows, failed, sent := count(t, pool, `SELECT count(DISTINCT n) FROM ledger`), count(t, pool, `SELECT count(*) FROM sqlq.error`), count(t, pool, `SELECT count(*) FROM sqlq.q_audit`)
	if rows != 5+len(entries)-failing || failed != failing || sent != rows || count(t, pool, `SELECT count(*) FROM sqlq.error WHERE message = 'fails' AND attempts = 1`) != failing {
		var why string
		_ = pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(DISTINCT message, ' | '), '') FROM sqlq.error`).Scan(&why)
		t.Errorf("%d booked, %d sent, %d failed; want %d, %d and %d: %s", rows, sent, failed, 5+len(entries)-failing, 5+len(entries)-failing, failing, why)
	}
}

// Each message starts clean, whatever those before it have done to the transaction and its session.
func TestHandleTxMessagesStartClean(t *testing.T) {
	t.Parallel()
	for _, sql := range []string{
		`SET LOCAL app.tenant = 'sued'`,
		`SET app.tenant = 'sued'`,
		`SELECT set_config('app.tenant', 'sued', true)`,
		`SELECT set_config('app.tenant', 'sued', false)`,
		`SET LOCAL session_replication_role = replica`,
		`SET session_replication_role = replica`,
		`SET LOCAL ROLE %ROLE%`,
		`SET ROLE %ROLE%`,
		`SET SESSION AUTHORIZATION %ROLE%`,
		`SET LOCAL search_path = nowhere`,
		`SET search_path = nowhere`,
		`SET statement_timeout = '1min'`,
		`SET LOCAL statement_timeout = '1min'`,
		`SET idle_in_transaction_session_timeout = '1min'`,
		`SET default_transaction_read_only = on`,
		`SET default_transaction_isolation = serializable`,
		`SET TIME ZONE 'Asia/Kathmandu'`,
		`SET datestyle = 'German'`,
		`SET work_mem = '5MB'`,
		`SET enable_hashjoin = off`,
		`SET row_security = off`,
		`SET bytea_output = 'escape'`,
		`SET synchronous_commit = off`,
		`SET client_min_messages = error`,
		`SET jit = on`,
		`RESET ALL`,
		`SET CONSTRAINTS ALL IMMEDIATE`,
		`CREATE TEMP TABLE scratch (i int) ON COMMIT DROP`,
		`CREATE TEMP TABLE scratch (i int)`,
		`CREATE TABLE pg_temp.scratch (i int)`,
		`SELECT 1 AS i INTO TEMP scratch`,
		`PREPARE left_over AS SELECT 1`,
		`DECLARE left_over CURSOR FOR SELECT 1`,
		`DECLARE left_over CURSOR WITH HOLD FOR SELECT 1`,
		`LISTEN left_over`,
		`SELECT pg_advisory_lock(4711)`,
		`DO $$ BEGIN PERFORM set_config('app.tenant', 'sued', true); END $$`,
		`DO $$ BEGIN SET LOCAL ROLE %ROLE%; END $$`,
	} {
		t.Run(sql, func(t *testing.T) {
			t.Parallel()
			disturb(t, "", func(ctx context.Context, tx pgx.Tx, role string, n int) error {
				_, err := tx.Exec(ctx, strings.ReplaceAll(sql, "%ROLE%", role))
				return err
			})
		})
	}
	t.Run("name by parameter", func(t *testing.T) {
		t.Parallel()
		disturb(t, "", func(ctx context.Context, tx pgx.Tx, role string, n int) error {
			return tx.QueryRow(ctx, `SELECT set_config($1, $2, false)`, "app.tenant", fmt.Sprint(n)).Scan(nil)
		})
	})
	t.Run("second statement, in a batch", func(t *testing.T) {
		t.Parallel()
		disturb(t, "", func(ctx context.Context, tx pgx.Tx, role string, n int) error {
			b := &pgx.Batch{}
			b.Queue(`SELECT 1`)
			b.Queue(`SET LOCAL app.tenant = 'sued'`)
			return tx.SendBatch(ctx, b).Close()
		})
	})
	t.Run("by the connection", func(t *testing.T) {
		t.Parallel()
		disturb(t, "", func(ctx context.Context, tx pgx.Tx, role string, n int) error {
			_, err := tx.Conn().Exec(ctx, `SET app.tenant = 'sued'; CREATE TEMP TABLE scratch (i int)`)
			return err
		})
	})
}

// What functions and triggers do to the session shows in no statement. It is found by the state of the session.
func TestHandleTxMessagesStartCleanBehindFunctions(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"custom setting":           `PERFORM set_config('app.tenant', 'sued', true)`,
		"custom setting, for good": `PERFORM set_config('app.tenant', 'sued', false)`,
		"search_path":              `SET LOCAL search_path = nowhere`,
		"role":                     `PERFORM set_config('role', 'tenant_' || current_database(), true)`,
		"replication role":         `SET session_replication_role = replica`,
		"time-out":                 `PERFORM set_config('statement' || '_timeout', '1min', false)`,
		"temporary table":          `CREATE TEMP TABLE scratch (i int) ON COMMIT DROP`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disturb(t, `CREATE FUNCTION public.hidden() RETURNS void LANGUAGE plpgsql AS $$ BEGIN `+body+`; END $$`,
				func(ctx context.Context, tx pgx.Tx, role string, n int) error {
					_, err := tx.Exec(ctx, `SELECT public.hidden()`)
					return err
				})
		})
	}
}

// Handlers that begin many transactions of their own end their batch before the server keeps its subtransactions on disk.
func TestHandleTxBatchEndsWithManySavepoints(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
	execSQL(t, pool, `CREATE TABLE handled (n int, x bigint)`)
	send(t, c, numbered(200)...)
	const nested = 10
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			for range nested {
				if err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error {
					_, err := tx.Exec(ctx, `INSERT INTO public.handled VALUES ($1, pg_current_xact_id()::text::bigint)`, d.Message.N)
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
	stop()
	if n := count(`SELECT count(*) FROM handled`); n != 200*nested {
		t.Errorf("%d rows, want %d", n, 200*nested)
	}
	if most := count(`SELECT max(n) FROM (SELECT count(*) AS n FROM handled GROUP BY x) s`); most > 70 {
		t.Errorf("%d subtransactions in a transaction", most)
	}
}

// An endpoint may have its messages handled one a transaction.
func TestHandleTxOneATransaction(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{})
	execSQL(t, pool, `CREATE TABLE handled (x bigint)`)
	send(t, c, numbered(100)...)
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", TxBatch: 1, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.handled VALUES (pg_current_xact_id()::text::bigint)`)
			return err
		})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
	stop()
	if n := count(`SELECT count(DISTINCT x) FROM handled`); n != 100 {
		t.Errorf("100 messages took %d transactions", n)
	}
}

// A failure that others of the transaction may have had a part in is tried without them before it counts.
func TestHandleTxFailsAloneBeforeItCounts(t *testing.T) {
	t.Parallel()
	c, pool, count := ledger(t, sqlq.Config{ReceiveConnections: 1})
	execSQL(t, pool, `CREATE TABLE parent (n int PRIMARY KEY); CREATE TABLE child (n int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`)
	entries := numbered(30)
	entries[20].Fail = "alter" // is refused where others have deferred checks of the table
	entries[25].Fail = "always"
	send(t, c, entries...)
	var always atomic.Int32
	stop := run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			switch d.Message.Fail {
			case "alter":
				_, err := tx.Exec(ctx, `ALTER TABLE public.child ADD COLUMN more int`)
				return err
			case "always":
				if always.Add(1); d.Attempt != 1 {
					t.Errorf("attempt %d", d.Attempt)
				}
				return errors.New("always fails")
			}
			_, err := tx.Exec(ctx, `WITH p AS (INSERT INTO public.parent VALUES ($1)) INSERT INTO public.child (n) VALUES ($1)`, d.Message.N)
			return err
		})}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
	stop()
	if rows, columns, failed := count(`SELECT count(*) FROM child`), count(`SELECT count(*) FROM information_schema.columns WHERE table_name = 'child'`), count(`SELECT count(*) FROM sqlq.error WHERE attempts = 1`); rows != 28 || columns != 2 || failed != 1 || count(`SELECT count(*) FROM sqlq.error`) != 1 {
		t.Errorf("%d rows, %d columns, %d failed; want 28, 2, 1", rows, columns, failed)
	}
	if n := always.Load(); n > 2 {
		t.Errorf("what always fails ran %d times, want at most twice", n)
	}
}

// A message that comes by itself and whose function takes another role is handled all the same: that its settle is refused is not
// its failure.
func TestHandleTxRoleBehindFunctionOfALoneMessage(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	role := "tenant_" + pool.Config().ConnConfig.Database
	execSQL(t, pool, `CREATE TABLE ledger (n int NOT NULL); CREATE ROLE `+role+`; GRANT ALL ON ledger TO PUBLIC;
		CREATE FUNCTION public.hidden() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('role', 'tenant_' || current_database(), true); END $$;
		SELECT sqlq.create_queue(q) FROM unnest(ARRAY['ledger', 'audit']) q`)
	t.Cleanup(func() {
		_, _ = pool.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
	})
	c := open(t, pool, sqlq.Config{ReceiveConnections: 1, Routes: map[string]string{"ledger.Entry": "ledger", "audit.Booked": "audit"}})
	run(t, c, sqlq.Endpoint{Name: "ledger", Retry: noRetry, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[entry]) error {
			if d.Message.Fail == "" {
				_, err := tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, d.Message.N)
				return err
			}
			_, err := tx.Exec(ctx, `SELECT public.hidden()`)
			if err == nil {
				_, err = tx.Exec(ctx, `INSERT INTO public.ledger VALUES ($1)`, d.Message.N)
			}
			return errors.Join(err, d.Send(booked{d.Message.N})) // the first to send: the server has not parsed that yet
		})}})
	for n, e := range numbered(6) { // the first batches of an endpoint are looked at thoroughly
		if n == 5 {
			e.Fail = "disturb"
		}
		send(t, c, e)
		eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
	}
	if rows, failed := count(t, pool, `SELECT count(*) FROM ledger`), count(t, pool, `SELECT count(*) FROM sqlq.error`); rows != 6 || failed != 0 {
		t.Errorf("%d booked, %d failed", rows, failed)
	}
}
