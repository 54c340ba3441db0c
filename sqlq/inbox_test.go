package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// A window that cannot be, or that contradicts at most once, is refused.
func TestDeduplicateRefuses(t *testing.T) {
	t.Parallel()
	c := open(t, newPool(t), sqlq.Config{})
	plain := chores(func(context.Context, *sqlq.Delivery[chore]) error { return nil })
	for want, e := range map[string]sqlq.Endpoint{
		"is -1ns: a window is":       {Name: "house", Deduplicate: -1, Handlers: plain},
		"is 744h0m1s: a window is":   {Name: "house", Deduplicate: 31*24*time.Hour + time.Second, Handlers: plain},
		"AtMostOnce and Deduplicate": {Name: "house", Deduplicate: time.Hour, AtMostOnce: true, Handlers: plain},
	} {
		if err := c.Run(t.Context(), e); !errors.Is(err, sqlq.ErrInvalidEndpoint) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// dedupHouse is a database with an endpoint that deduplicates, by Handle, HandleTx or both, and counts what it handled.
type dedupHouse struct {
	pool    *pgxpool.Pool
	handled sync.Map // sqlq.ID → *atomic.Int32: handlers that succeeded
	do      func(ctx context.Context, in *sqlq.Incoming, m chore) error
}

func newDedupHouse(t *testing.T) *dedupHouse {
	h := &dedupHouse{pool: newPool(t), do: func(context.Context, *sqlq.Incoming, chore) error { return nil }}
	execSQL(t, h.pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	return h
}

func (h *dedupHouse) endpoint(inTx bool) sqlq.Endpoint {
	do := func(ctx context.Context, in *sqlq.Incoming, m chore) error {
		if err := h.do(ctx, in, m); err != nil {
			return err
		}
		if err := in.Send(entry{N: m.N}); err != nil {
			return err
		}
		n, _ := h.handled.LoadOrStore(in.ID, &atomic.Int32{})
		n.(*atomic.Int32).Add(1)
		return nil
	}
	handler := sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[chore]) error { return do(ctx, d.Incoming, d.Message) })
	if inTx {
		handler = sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[chore]) error {
			return do(ctx, d.Incoming, d.Message)
		})
	}
	return sqlq.Endpoint{Name: "house", Concurrency: 8, Deduplicate: time.Minute, Retry: noRetry, Handlers: []sqlq.Handler{handler}}
}

// times says how often an id was handled.
func (h *dedupHouse) times(id sqlq.ID) int {
	n, ok := h.handled.Load(id)
	if !ok {
		return 0
	}
	return int(n.(*atomic.Int32).Load())
}

// done waits until nothing of the endpoint is left.
func (h *dedupHouse) done(t *testing.T) {
	t.Helper()
	eventuallyCount(t, h.pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
}

const inboxRows = `SELECT (SELECT count(*) FROM sqlq.inbox_minutes_a) + (SELECT count(*) FROM sqlq.inbox_minutes_b)`

// Whatever is sent twice is handled once: in one batch, in several processes, at different times; what a handler sends is
// stored once, and duplicates are counted apart.
func TestDeduplicate(t *testing.T) {
	t.Parallel()
	for _, inTx := range []bool{false, true} {
		t.Run(map[bool]string{false: "Handle", true: "HandleTx"}[inTx], func(t *testing.T) {
			t.Parallel()
			h := newDedupHouse(t)
			a, b := open(t, h.pool, sqlq.Config{Routes: choreRoute}), open(t, h.pool, sqlq.Config{Routes: choreRoute})
			send := func(ids []sqlq.ID) {
				t.Helper()
				for i, id := range ids {
					if err := a.Send(t.Context(), chore{N: i}, sqlq.WithID(id)); err != nil {
						t.Fatal(err)
					}
				}
			}
			var ids []sqlq.ID
			for range 60 {
				ids = append(ids, sqlq.NewID())
			}
			send(ids)
			send(ids) // they may be in one batch, or in two at the same time
			run(t, a, h.endpoint(inTx))
			run(t, b, h.endpoint(inTx))
			send(ids[:20])
			h.done(t)
			send(ids[20:]) // later
			h.done(t)
			for _, id := range ids {
				if n := h.times(id); n != 1 {
					t.Errorf("message %v was handled %d times", id, n)
				}
			}
			eventually(t, "statistics", func() (bool, string) {
				x, y := a.Stats().Endpoints[0], b.Stats().Endpoints[0]
				return x.Handled+y.Handled == 60 && x.Duplicates+y.Duplicates == 120 && x.Retried+y.Retried+x.Failed+y.Failed == 0, fmt.Sprintf("%+v %+v", x, y)
			})
			if n, rows := count(t, h.pool, `SELECT count(*) FROM sqlq.q_ledger`), count(t, h.pool, inboxRows); n != 60 || rows != 60 {
				t.Errorf("%d messages were sent by handlers, and %d ids are kept, want 60", n, rows)
			}
		})
	}
}

// One id counts as handled only when it was: not while it is retried, not when it failed, has expired or was undecodable,
// and not beyond the window.
func TestDeduplicateCountsOnlyWhatWasHandled(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	var broken atomic.Bool
	broken.Store(true)
	h.do = func(context.Context, *sqlq.Incoming, chore) error {
		if broken.Load() {
			return errors.New("no water")
		}
		return nil
	}
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute})
	run(t, c, h.endpoint(false))
	failed, expired, garbled := sqlq.NewID(), sqlq.NewID(), sqlq.NewID()
	if err := c.Send(t.Context(), chore{}, sqlq.WithID(failed)); err != nil {
		t.Fatal(err)
	}
	execSQL(t, h.pool, `SELECT sqlq.send('house', 'house.Chore', '{}', expires_in => interval '1 microsecond', id => $1)`, expired.String())
	execSQL(t, h.pool, `SELECT sqlq.send('house', 'house.Chore', '"x"', id => $1)`, garbled.String())
	eventuallyCount(t, h.pool, 2, `SELECT count(*) FROM sqlq.error`)
	h.done(t)
	if n := count(t, h.pool, inboxRows); n != 0 {
		t.Fatalf("%d ids are kept of messages that were not handled", n)
	}
	broken.Store(false)
	execSQL(t, h.pool, `SELECT sqlq.replay(queue => 'house', id => $1)`, failed.String())
	if err := c.Send(t.Context(), chore{}, sqlq.WithID(expired)); err != nil {
		t.Fatal(err)
	}
	h.done(t)
	if h.times(failed) != 1 || h.times(expired) != 1 {
		t.Errorf("what had failed was handled %d times, what had expired %d times, want 1", h.times(failed), h.times(expired))
	}
	execSQL(t, h.pool, `UPDATE sqlq.inbox_minutes_a SET at = at - interval '61 seconds'`) // beyond the window
	if err := c.Send(t.Context(), chore{}, sqlq.WithID(failed)); err != nil {
		t.Fatal(err)
	}
	h.done(t)
	if n := h.times(failed); n != 2 {
		t.Errorf("sent again after the window it was handled %d times, want 2", n)
	}
}

// While a handler runs, held or leased, a second message of its id waits. If the first succeeds it is removed; if it
// fails it is handled.
func TestDeduplicateWaitsForTheOneInHand(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		hold  time.Duration
		fails bool
		inTx  bool
	}{
		{name: "held", hold: 5 * time.Second},
		{name: "held, fails", hold: 5 * time.Second, fails: true},
		{name: "leased", hold: 5 * time.Millisecond},
		{name: "leased, fails", hold: 5 * time.Millisecond, fails: true},
		{name: "HandleTx", hold: 5 * time.Second, inTx: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := newDedupHouse(t)
			began, goOn := make(chan struct{}), make(chan struct{})
			var calls atomic.Int32
			h.do = func(context.Context, *sqlq.Incoming, chore) error {
				if calls.Add(1) > 1 {
					return nil
				}
				close(began)
				<-goOn
				if tc.fails {
					return errors.New("no water")
				}
				return nil
			}
			first, second := open(t, h.pool, sqlq.Config{Routes: choreRoute, HoldLimit: tc.hold}), open(t, h.pool, sqlq.Config{Routes: choreRoute})
			id := sqlq.NewID()
			if err := first.Send(t.Context(), chore{N: 1}, sqlq.WithID(id)); err != nil {
				t.Fatal(err)
			}
			run(t, first, h.endpoint(tc.inTx))
			<-began
			if tc.hold < time.Second {
				eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.leased`)
			}
			run(t, second, h.endpoint(tc.inTx))
			if err := first.Send(t.Context(), chore{N: 2}, sqlq.WithID(id)); err != nil {
				t.Fatal(err)
			}
			eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE attempt = 0 AND error LIKE 'another message with this id%'`)
			if calls.Load() != 1 {
				t.Errorf("%d handlers of one id at once", calls.Load())
			}
			close(goOn)
			h.done(t)
			failed := count(t, h.pool, `SELECT count(*) FROM sqlq.error`)
			want := 0
			if tc.fails {
				want = 1
			}
			if h.times(id) != 1 || failed != want || int(calls.Load()) != 1+want {
				t.Errorf("handled %d times by %d calls, %d failed", h.times(id), calls.Load(), failed)
			}
			if n := count(t, h.pool, inboxRows+` - (SELECT count(*) FROM sqlq.inbox_minutes_a WHERE instance IS NOT NULL)`); n != 1 {
				t.Errorf("%d ids are kept, want 1", n)
			}
		})
	}
}

// A process that is killed leaves no claim behind that would keep its message from being handled, nor one whose commit
// tells that it was.
func TestDeduplicateKilledProcess(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, state string
		spec        childSpec
	}{
		{"held", `SELECT (SELECT count(*) FROM began) = 8 AND NOT EXISTS (SELECT FROM sqlq.leased)`, childSpec{HoldLimit: 5 * time.Second, Connections: 1}},
		{"leased", `SELECT (SELECT count(*) FROM sqlq.inbox_minutes_a WHERE instance IS NOT NULL) = 8 AND (SELECT count(*) FROM sqlq.leased) = 8`, childSpec{HoldLimit: 20 * time.Millisecond}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			site := newCrashSite(t)
			do := map[int]string{}
			for i := range 8 {
				do[i] = "wait"
			}
			site.sendPerils(t, 8, false, do)
			tc.spec.URL, tc.spec.Concurrency, tc.spec.Deduplicate = site.url, 8, true
			victim := spawn(t, tc.spec)
			site.inMidst(t, tc.name, tc.state)
			if err := victim.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			victim.wait(t)
			e := (&perils{pool: site.pool}).endpoint(8, false)
			e.Deduplicate = time.Minute
			stop := run(t, site.Client, e)
			site.empty(t, tc.name, time.Now(), patience)
			stop()
			site.once(t, 8, fmt.Sprintf(`SELECT n FROM handled WHERE pid = %d`, os.Getpid()), "handled by this process")
			site.once(t, 8, aftermaths, "sent by handlers")
			if n := count(t, site.pool, inboxRows); n != 8 {
				t.Errorf("%d ids are kept, want 8", n)
			}
		})
	}
}

// What cannot be claimed is free again at once, held or leased.
func TestDeduplicateFreesWhatItCannotClaim(t *testing.T) {
	t.Parallel()
	for _, wary := range []bool{false, true} {
		t.Run(fmt.Sprint("by lease: ", wary), func(t *testing.T) {
			t.Parallel()
			h := newDedupHouse(t)
			if wary {
				execSQL(t, h.pool, `INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, crashed_at)
					VALUES ('house', 'of the past', 1, '', 1, true, interval '1 second', clock_timestamp())`)
			}
			c := open(t, h.pool, sqlq.Config{Routes: choreRoute})
			run(t, c, h.endpoint(false))
			execSQL(t, h.pool, `ALTER FUNCTION sqlq.claim_messages RENAME TO away`)
			id := sqlq.NewID()
			if err := c.Send(t.Context(), chore{}, sqlq.WithID(id)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it was fetched", func() (bool, string) {
				s := c.Stats()
				return len(s.Endpoints) > 0 && s.Endpoints[0].Received > 0, fmt.Sprintf("%+v", s)
			})
			execSQL(t, h.pool, `ALTER FUNCTION sqlq.away RENAME TO claim_messages`)
			h.done(t)
			if n := h.times(id); n != 1 {
				t.Errorf("handled %d times", n)
			}
		})
	}
}

// Where the server refuses a batch, its messages are claimed anew, one by one.
func TestDeduplicateRefusedSettle(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	h.do = func(_ context.Context, in *sqlq.Incoming, m chore) error {
		if m.Do == "fail" {
			return in.Send(chore{}, sqlq.To("nowhere"))
		}
		return nil
	}
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute})
	var ids []sqlq.ID
	for i := range 20 {
		id, m := sqlq.NewID(), chore{N: i}
		if i == 7 {
			m.Do = "fail"
		}
		ids = append(ids, id)
		for range 2 {
			if err := c.Send(t.Context(), m, sqlq.WithID(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run(t, c, h.endpoint(false))
	h.done(t)
	if n, kept, failed := count(t, h.pool, `SELECT count(*) FROM sqlq.q_ledger`), count(t, h.pool, inboxRows), count(t, h.pool, `SELECT count(*) FROM sqlq.error`); n != 19 || kept != 19 || failed != 2 {
		t.Errorf("%d settled, %d ids kept, %d failed; want 19, 19, and both copies of the one that cannot be settled", n, kept, failed)
	}
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
	execSQL(t, h.pool, `SELECT sqlq.grant_operations($1, 'consumer', ARRAY['house'])`, role) // what an older grant_role did
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	if err := c.Run(t.Context(), h.endpoint(false)); !errors.Is(err, sqlq.ErrNotGranted) || !strings.Contains(err.Error(), "deduplicate in queue") {
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
