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

	"github.com/sqlq/sqlq/sqlq"
)

// A window that cannot be, or that contradicts at most once, is refused.
func TestDeduplicateRefuses(t *testing.T) {
	t.Parallel()
	c := open(t, newPool(t), sqlq.Config{})
	plain := chores(func(context.Context, *sqlq.Delivery[chore]) error { return nil })
	for want, e := range map[string]sqlq.Endpoint{
		"is -1ns: it must be from 0":   {Name: "house", Deduplicate: -1, Handlers: plain},
		"is 744h0m1s: it must be from": {Name: "house", Deduplicate: 31*24*time.Hour + time.Second, Handlers: plain},
		"AtMostOnce and Deduplicate":   {Name: "house", Deduplicate: time.Hour, AtMostOnce: true, Handlers: plain},
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
				x, y := statsOf(a), statsOf(b)
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
	for i := range 20 {
		id, m := sqlq.NewID(), chore{N: i}
		if i == 7 {
			m.Do = "fail"
		}
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

// A handler that ends the receive transaction past the tx it was given, by COMMIT, makes the ids of its batch look handled. It
// fails, and so does not count as handled; its neighbours are handled all the same.
func TestDeduplicateCommitPastTheTx(t *testing.T) {
	t.Parallel()
	h := newDedupHouse(t)
	var mended atomic.Bool
	e := h.endpoint(true)
	e.Handlers = []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[chore]) error {
		if d.Message.Do == "commit" && !mended.Load() {
			_, err := tx.Conn().Exec(ctx, `COMMIT`)
			return err
		}
		return d.Send(entry{N: d.Message.N})
	})}
	c := open(t, h.pool, sqlq.Config{Routes: choreRoute, ReceiveConnections: 1})
	var ms []sqlq.Message
	for i := range 9 {
		ms = append(ms, chore{N: i, Do: map[bool]string{true: "commit"}[i == 4]})
	}
	if err := c.SendMany(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	run(t, c, e)
	eventuallyCount(t, h.pool, 1, `SELECT count(*) FROM sqlq.error`)
	h.done(t)
	mended.Store(true)
	execSQL(t, h.pool, `SELECT sqlq.replay(queue => 'house')`)
	h.done(t)
	if n := count(t, h.pool, `SELECT count(*) FROM sqlq.q_ledger`); n != 9 {
		t.Errorf("%d of 9 messages were handled", n)
	}
}
