package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// A claim that waits for another's, which turns into a lease meanwhile, does not take it for one whose lease is gone.
func TestClaimWhileAnotherIsLeased(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	for range 100 {
		id := sqlq.NewID().String()
		tx, err := h.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{
			`SELECT sqlq.claim_messages('house', ARRAY[$1::uuid], '1 minute', NULL)`,
			`INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (7, 'house', 1, $1, now(), 0, 't', '')`,
			`SELECT sqlq.settle_claims('house', '1 minute', '{}', '{}', ARRAY[$1::uuid], false, 7)`,
		} {
			if _, err := tx.Exec(t.Context(), sql, id); err != nil {
				t.Fatal(err)
			}
		}
		others := make(chan int, 1)
		go func() {
			n := -1
			_ = h.pool.QueryRow(t.Context(), `SELECT count(*) FROM sqlq.claim_messages('house', ARRAY[$1::uuid], '1 minute', NULL)`, id).Scan(&n)
			others <- n
		}()
		eventually(t, "it waits, or has waited", func() (bool, string) {
			return len(others) > 0 || count(t, h.pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0, ""
		})
		if err := tx.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := <-others; n != 0 {
			t.Fatalf("another claim of a leased message returned %d, want that it is in somebody's hands", n)
		}
	}
}

// A claim that a lease has left behind, because the lease was taken away or the answer to the claim was lost, is not that of the
// next lease of the same instance: it would wait for itself. That of another message in hand is.
func TestClaimOfALeaseThatIsGone(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	id := sqlq.NewID().String()
	lease := func() (lease int) {
		return count(t, h.pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (7, 'house', 1, $1, now(), 0, 't', '') RETURNING lease`, id)
	}
	claim := func(want int, lease int) {
		t.Helper()
		if n := count(t, h.pool, `SELECT count(*) FROM sqlq.claim_messages('house', ARRAY[$1::uuid], '1 minute', 7, ARRAY[$2::bigint]) WHERE state = 'claimed'`, id, lease); n != want {
			t.Errorf("lease %d claims %d, want %d", lease, n, want)
		}
	}
	first := lease()
	claim(1, first)
	execSQL(t, h.pool, `DELETE FROM sqlq.leased`)
	second := lease()
	claim(1, second)
	claim(0, lease())
}

// A message that an operator takes from an instance that receives by lease is handled again, by the same instance if there is
// no other.
func TestDeduplicateReleasedLease(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	execSQL(t, h.pool, `INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, crashed_at)
		VALUES ('house', 'of the past', 1, '', 1, true, interval '1 second', clock_timestamp())`)
	began, goOn := make(chan struct{}, 2), make(chan struct{})
	h.do = func(context.Context, *sqlq.Incoming, chore) error {
		began <- struct{}{}
		<-goOn
		return nil
	}
	defer close(goOn)
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute})
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Fatal(err)
	}
	run(t, c, h.endpoint(false))
	<-began
	if released, err := ops.New(h.pool, "sqlq").Leases.Release(t.Context(), ops.LeaseFilter{Queue: "house"}); err != nil || released.Released != 1 {
		t.Fatal(released, err)
	}
	select {
	case <-began:
	case <-time.After(patience):
		t.Error("it is not handled again")
	}
}

// What was claimed for a lease before the inbox turned, and handled afterwards, is kept for as long as everything else.
func TestInboxKeepsWhatWasHandledAfterItTurned(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	began, goOn := make(chan struct{}, 2), make(chan struct{})
	h.do = func(context.Context, *sqlq.Incoming, chore) error {
		began <- struct{}{}
		<-goOn
		return nil
	}
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute, HoldLimit: 10 * time.Millisecond})
	id := sqlq.NewID()
	if err := c.Send(t.Context(), chore{}, sqlq.WithID(id)); err != nil {
		t.Fatal(err)
	}
	run(t, c, h.endpoint(false))
	<-began
	eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.leased`)
	turnInbox(t, h.pool, "minutes")
	close(goOn)
	h.done(t)
	turnInbox(t, h.pool, "minutes")
	if err := c.Send(t.Context(), chore{}, sqlq.WithID(id)); err != nil {
		t.Fatal(err)
	}
	h.done(t)
	if n := h.times(id); n != 1 {
		t.Errorf("handled %d times", n)
	}
}

// turnInbox turns an inbox as if its time had come, while nobody has a batch in hand.
func turnInbox(t *testing.T, pool *pgxpool.Pool, name string) {
	t.Helper()
	execSQL(t, pool, `UPDATE sqlq.inbox SET rotated_at = '2000-01-01' WHERE name = $1`, name)
	eventually(t, "the inbox turns", func() (bool, string) {
		_, err := pool.Exec(t.Context(), `SELECT sqlq.rotate_inbox()`)
		return count(t, pool, `SELECT count(*) FROM sqlq.inbox WHERE name = $1 AND rotated_at > '2000-01-01'`, name) == 1, fmt.Sprint(err)
	})
}

// An inbox that somebody has for long keeps no other from its turn.
func TestInboxesTurnApart(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	execSQL(t, h.pool, `SELECT sqlq.claim_messages('house', ARRAY[sqlq.uuid_v7()], keep, NULL) FROM unnest(ARRAY['1 minute', '1 hour', '1 day']::interval[]) keep`)
	tx, err := h.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	for _, keep := range []string{"1 minute", "1 hour"} {
		if _, err := tx.Exec(t.Context(), `SELECT sqlq.claim_messages('house', ARRAY[sqlq.uuid_v7()], $1::text::interval, NULL)`, keep); err != nil {
			t.Fatal(err)
		}
	}
	execSQL(t, h.pool, `UPDATE sqlq.inbox SET rotated_at = '2000-01-01'`)
	if n := count(t, h.pool, `SELECT sqlq.rotate_inbox()`); n != 1 || count(t, h.pool, `SELECT count(*) FROM sqlq.inbox WHERE name = 'days' AND current = 'b'`) != 1 {
		t.Errorf("%d turned, want the one that is free", n)
	}
	eventually(t, "the others cannot be locked", func() (bool, string) { // a busy machine may take half a second to look for ids to delete
		_, err := h.pool.Exec(t.Context(), `SELECT sqlq.rotate_inbox()`)
		return sqlStateOf(err) == "55P03", fmt.Sprint(err)
	})
}

// The inbox forgets by truncating the half that has been kept for its time, and never what a lease still claims.
func TestInboxRotates(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	h.do = func(_ context.Context, _ *sqlq.Incoming, m chore) error {
		if m.Slow {
			close(began)
			<-goOn
		}
		return nil
	}
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute, HoldLimit: 10 * time.Millisecond})
	slow, quick := sqlq.NewID(), sqlq.NewID()
	run(t, c, h.endpoint(false))
	for id, m := range map[sqlq.ID]chore{slow: {Slow: true}, quick: {}} {
		if err := c.Send(t.Context(), m, sqlq.WithID(id)); err != nil {
			t.Fatal(err)
		}
	}
	<-began
	eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.leased`)
	eventuallyCount(t, h.pool, 0, `SELECT count(*) FROM sqlq.q_house`)
	rotate := func(want int) {
		t.Helper()
		eventually(t, "rotated", func() (bool, string) { // while nobody has a batch in hand
			var n int
			err := h.pool.QueryRow(t.Context(), `SELECT sqlq.rotate_inbox()`).Scan(&n)
			return err == nil && n == want, fmt.Sprint(n, err)
		})
	}
	rotate(0) // it is not time
	age := func() {
		execSQL(t, h.pool, `UPDATE sqlq.inbox SET rotated_at = rotated_at - interval '11 minutes' WHERE name IN ('minutes', 'hours')`)
	}
	age()
	rotate(1)
	if n := count(t, h.pool, inboxRows); n != 2 {
		t.Errorf("%d ids are kept after one turn, want both", n)
	}
	age()
	rotate(1)
	if n := count(t, h.pool, inboxRows); n != 1 {
		t.Errorf("%d ids are kept after two turns, want that which is claimed", n)
	}
	if err := c.Send(t.Context(), chore{}, sqlq.WithID(slow)); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE error LIKE 'another message with this id%'`)
	close(goOn)
	h.done(t)
	if n := h.times(slow); n != 1 {
		t.Errorf("handled %d times", n)
	}
}

// Each window has the inbox that keeps ids for the shortest time that is long enough.
func TestEachWindowHasItsInbox(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute})
	for _, tc := range []struct {
		window time.Duration
		table  string
	}{
		{time.Second, "inbox_minutes_a"}, {10 * time.Minute, "inbox_minutes_a"}, {10*time.Minute + time.Second, "inbox_hours_a"},
		{3 * time.Hour, "inbox_hours_a"}, {48 * time.Hour, "inbox_days_a"}, {49 * time.Hour, "inbox_weeks_a"}, {31 * 24 * time.Hour, "inbox_weeks_a"},
	} {
		e, id := h.endpoint(false), sqlq.NewID()
		e.Deduplicate = tc.window
		stop := run(t, c, e)
		if err := c.Send(t.Context(), chore{}, sqlq.WithID(id)); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.`+tc.table+` WHERE queue = 'house' AND id = $1 AND instance IS NULL`, id.String())
		stop()
	}
}

// A role needs what the consumers of this version are granted, and of a queue that it has not it can claim nothing.
func TestInboxIsForConsumersOfTheQueue(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	h := &dedupHouse{pool: poolOn(t, url), do: func(context.Context, *sqlq.Incoming, chore) error { return nil }}
	execSQL(t, h.pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	role, pool := newRole(t, url, "consumer_")
	execSQL(t, h.pool, `SELECT sqlq.grant_role($1, 'consumer', ARRAY['house'])`, role)
	execSQL(t, h.pool, `REVOKE EXECUTE ON FUNCTION sqlq.claim_messages, sqlq.settle_claims, sqlq.rotate_inbox FROM `+pgx.Identifier{role}.Sanitize()) // as an older schema
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	if err := c.Run(t.Context(), h.endpoint(false)); !errors.Is(err, sqlq.ErrPermissionDenied) || !strings.Contains(err.Error(), "deduplicate in queue") {
		t.Fatalf("without the grant: %v", err)
	}
	execSQL(t, h.pool, `SELECT sqlq.grant_role($1, 'consumer', ARRAY['house']), sqlq.grant_role($1, 'producer', ARRAY['ledger'])`, role)
	run(t, c, h.endpoint(false))
	id := sqlq.NewID()
	for range 2 {
		execSQL(t, h.pool, `SELECT sqlq.send('house', 'house.Chore', '{}', id => $1)`, id.String())
	}
	h.done(t)
	if n := h.times(id); n != 1 {
		t.Errorf("handled %d times", n)
	}
	for _, sql := range []string{
		`SELECT sqlq.claim_messages('ledger', ARRAY[gen_random_uuid()], '1 minute', NULL)`,
		`SELECT sqlq.settle_claims('ledger', '1 minute', '{}', ARRAY[gen_random_uuid()], '{}', false, NULL)`,
		`SELECT FROM sqlq.inbox_minutes_a`,
	} {
		if _, err := pool.Exec(t.Context(), sql); sqlStateOf(err) != "42501" {
			t.Errorf("%s: %v, want that the privilege lacks", sql, err)
		}
	}
	// A login that has set another role is asked by that one.
	member, _ := newRole(t, url, "member_")
	execSQL(t, h.pool, `GRANT `+pgx.Identifier{member}.Sanitize()+` TO `+pgx.Identifier{role}.Sanitize())
	execSQL(t, h.pool, `SELECT sqlq.grant_role($1, 'consumer', ARRAY['ledger'])`, member)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET LOCAL ROLE `+pgx.Identifier{member}.Sanitize())
		if err == nil {
			_, err = tx.Exec(t.Context(), `SELECT sqlq.claim_messages('ledger', ARRAY[gen_random_uuid()], '1 minute', NULL)`)
		}
		if err == nil {
			_, err = tx.Exec(t.Context(), `SELECT sqlq.claim_messages('house', ARRAY[gen_random_uuid()], '1 minute', NULL)`)
		}
		return err
	})
	if sqlStateOf(err) != "42501" || !strings.Contains(err.Error(), "house") {
		t.Errorf("as a member of another role: %v, want the other's queue and not one's own", err)
	}
}

// A claim costs the same however many ids are kept, whatever the statistics say: each id is looked up by itself.
func TestClaimCostsTheSameWhateverIsKept(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	for _, table := range []string{"inbox_minutes_a", "inbox_minutes_b"} {
		execSQL(t, h.pool, `INSERT INTO sqlq.`+table+` (queue, id) SELECT 'house', sqlq.uuid_v7() FROM generate_series(1, 20000)`)
	}
	for _, statistics := range []string{`SELECT`, `ANALYZE sqlq.inbox_minutes_a, sqlq.inbox_minutes_b`} {
		execSQL(t, h.pool, statistics)
		err := pgx.BeginFunc(t.Context(), h.pool, func(tx pgx.Tx) error {
			for _, sql := range []string{
				`CREATE TEMP TABLE fresh ON COMMIT DROP AS SELECT array_agg(sqlq.uuid_v7()) AS ids FROM generate_series(1, 50)`,
				`SELECT sqlq.claim_messages('house', ids, '1 minute', NULL) FROM fresh`,
				`SELECT sqlq.settle_claims('house', '1 minute', ids[40:50], ids[1:10], ids[20:30], false, 1) FROM fresh`,
			} {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					return err
				}
			}
			var read int
			err := tx.QueryRow(t.Context(), `SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'inbox_minutes_%'`).Scan(&read)
			if read > 500 {
				t.Errorf("after %s: it took reading %d rows to claim and settle 50 ids", statistics, read)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Both guarantees by choice hold through a transaction pooler.
func TestChoicesThroughBouncer(t *testing.T) {
	t.Parallel()
	bouncer.Need(t)
	for _, mode := range []string{"exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode="+mode)
			h := &dedupHouse{pool: past, do: func(_ context.Context, _ *sqlq.Incoming, m chore) error {
				if m.Do == "fail" {
					return errors.New("no water")
				}
				return nil
			}}
			execSQL(t, past, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'shed', 'ledger']) q`)
			c := open(t, through, sqlq.Config{Routes: choreRoute, PollInterval: 20 * time.Millisecond})
			most := h.endpoint(false)
			most.Name, most.Deduplicate, most.AtMostOnce, most.Retry = "shed", 0, true, sqlq.RetryPolicy{}
			id := sqlq.NewID()
			for range 3 {
				if err := c.Send(t.Context(), chore{N: 1}, sqlq.WithID(id)); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.SendMany(t.Context(), []sqlq.Message{chore{N: 2}, chore{N: 3, Do: "fail"}}, sqlq.To("shed")); err != nil {
				t.Fatal(err)
			}
			other := open(t, through, sqlq.Config{Routes: map[string]string{"ledger.Entry": "ledger"}, PollInterval: 20 * time.Millisecond})
			run(t, c, h.endpoint(false))
			run(t, other, most)
			h.done(t)
			eventuallyCount(t, past, 0, `SELECT count(*) FROM sqlq.q_shed`)
			eventuallyCount(t, past, 2, `SELECT count(*) FROM sqlq.q_ledger`)
			eventuallyCount(t, past, 1, `SELECT count(*) FROM sqlq.error WHERE queue = 'shed' AND attempts = 1`)
			if n := h.times(id); n != 1 {
				t.Errorf("sent three times with one id, handled %d times", n)
			}
		})
	}
}

// Of an inbox that is in use and late, and has nothing that could be deleted, it says that it cannot be locked.
func TestInboxInUseWithNothingToDelete(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	execSQL(t, h.pool, `INSERT INTO sqlq.inbox_minutes_b (queue, id) SELECT 'house', sqlq.uuid_v7() FROM generate_series(1, 10)`)
	execSQL(t, h.pool, `UPDATE sqlq.inbox SET rotated_at = now() - interval '1 hour' WHERE name = 'minutes'`)
	tx, err := h.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `SELECT sqlq.claim_messages('house', ARRAY[sqlq.uuid_v7()], '1 minute', NULL)`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing to delete, and the table cannot be locked", func() (bool, string) {
		_, err := h.pool.Exec(t.Context(), `SELECT sqlq.rotate_inbox()`)
		return sqlStateOf(err) == "55P03", fmt.Sprint(err)
	})
	if n := count(t, h.pool, `SELECT count(*) FROM sqlq.inbox_minutes_b`); n != 10 {
		t.Errorf("%d ids are kept, want 10", n)
	}
}

// While handlers that follow one another keep an inbox from being emptied, ids that were kept for their time are deleted piece by
// piece; those within it, and what a lease claims, stay.
func TestInboxInUseIsSweptInPieces(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	const old = 50_000                         // several pieces
	for _, table := range []string{"a", "b"} { // a vacuum has the lock that rotate_inbox asks for
		execSQL(t, h.pool, `ALTER TABLE sqlq.inbox_minutes_`+table+` SET (autovacuum_enabled = off)`)
	}
	execSQL(t, h.pool, `INSERT INTO sqlq.inbox_minutes_b (queue, id, at) SELECT 'house', sqlq.uuid_v7(), now() - interval '1 day' FROM generate_series(1, $1)`, old)
	execSQL(t, h.pool, `INSERT INTO sqlq.inbox_minutes_a (queue, id, at) SELECT 'house', sqlq.uuid_v7(), now() - interval '11 minutes' * (i % 2) FROM generate_series(1, 1000) i`)
	execSQL(t, h.pool, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body) VALUES (7, 'house', 1, gen_random_uuid(), now(), 0, 't', '')`)
	execSQL(t, h.pool, `INSERT INTO sqlq.inbox_minutes_b (queue, id, instance, at) SELECT queue, id, instance, now() - interval '1 day' FROM sqlq.leased`)
	execSQL(t, h.pool, `UPDATE sqlq.inbox SET rotated_at = now() - interval '15 minutes' WHERE name = 'minutes'`)
	tx, err := h.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `SELECT sqlq.claim_messages('house', ARRAY[sqlq.uuid_v7()], '1 minute', NULL)`); err != nil {
		t.Fatal(err)
	}
	if _, err := h.pool.Exec(t.Context(), `SELECT sqlq.rotate_inbox()`); sqlStateOf(err) != "55P03" {
		t.Errorf("one that is not late yet: %v, want that it cannot be locked", err)
	}
	execSQL(t, h.pool, `UPDATE sqlq.inbox SET rotated_at = now() - interval '21 minutes' WHERE name = 'minutes'`)
	for calls := 1; ; calls++ {
		if n := count(t, h.pool, `SELECT sqlq.rotate_inbox()`); n == 0 {
			break
		} else if n != 2 || calls > 1000 {
			t.Fatalf("call %d returned %d", calls, n)
		}
	}
	if a, b := count(t, h.pool, `SELECT count(*) FROM sqlq.inbox_minutes_a`), count(t, h.pool, `SELECT count(*) FROM sqlq.inbox_minutes_b`); a != 500 || b != 1 {
		t.Errorf("%d and %d ids are kept, want 500 and the leased one", a, b)
	}
	// It looks through everything once more: on a fast machine in one call, which then says that the table cannot be locked, on a
	// busy one in pieces.
	for calls := 1; ; calls++ {
		var n int
		err := h.pool.QueryRow(t.Context(), `SELECT sqlq.rotate_inbox()`).Scan(&n)
		if sqlStateOf(err) == "55P03" || err == nil && n == 0 {
			break
		} else if err != nil || n != 2 || calls > 1000 {
			t.Fatalf("call %d with nothing left to delete returned %d, %v", calls, n, err)
		}
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it turns when it is free", func() (bool, string) {
		n := count(t, h.pool, `SELECT sqlq.rotate_inbox()`)
		return n == 1, fmt.Sprint(n)
	})
}
