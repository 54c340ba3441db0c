package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// outcomes keeps what Endpoint.Settled was told, and checks in the database that it is so.
type outcomes struct {
	t    *testing.T
	pool *pgxpool.Pool
	mu   sync.Mutex
	all  []sqlq.Settled
}

func (o *outcomes) settled(_ context.Context, s sqlq.Settled) {
	where := map[sqlq.Outcome]string{sqlq.OutcomeFail: "error"}[s.Outcome]
	if s.Outcome == sqlq.OutcomeRetry || s.Outcome == sqlq.OutcomeWait && s.Delay > 0 {
		where = "delayed"
	}
	places := 0
	if where != "" {
		places = 1
	}
	if s.Delay < time.Minute && where == "delayed" || s.Outcome == sqlq.OutcomeUndone || s.Outcome == sqlq.OutcomeWait && s.Delay == 0 {
		where = "anywhere" // it moves on
	}
	if where != "anywhere" {
		n := count(o.t, o.pool, `SELECT (SELECT count(*) FROM sqlq.error WHERE id = $1) + (SELECT count(*) FROM sqlq.delayed WHERE id = $1)
			+ (SELECT count(*) FROM sqlq.q_house WHERE id = $1) + (SELECT count(*) FROM sqlq.leased WHERE id = $1)`, s.ID.String())
		if n != places || where != "" && count(o.t, o.pool, `SELECT count(*) FROM sqlq.`+where+` WHERE id = $1`, s.ID.String()) != 1 {
			o.t.Errorf("told %s of %v before it was so: it is in %d places", s.Outcome, s.ID, n)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, s)
}

// of returns what was told of a message, in order, in short.
func (o *outcomes) of(id sqlq.ID) (texts []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.all {
		if s.ID == id {
			texts = append(texts, fmt.Sprintf("%s %d: %v", s.Outcome, s.Attempt, s.Err))
		}
	}
	return texts
}

func (o *outcomes) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.all)
}

func (o *outcomes) wants(what string, id sqlq.ID, want ...string) {
	o.t.Helper()
	eventually(o.t, what, func() (bool, string) {
		got := o.of(id)
		return slices.Equal(got, want), fmt.Sprintf("%q, want %q", got, want)
	})
}

// Whatever becomes of a message, in whatever way the process has it in hand, is told once, when it has been committed.
func TestSettledIsToldOfEachOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                      string
		inTx, byLease, once, slow bool
	}{{name: "Handle"}, {name: "HandleTx", inTx: true}, {name: "by lease", byLease: true}, {name: "HandleTx, by lease", inTx: true, byLease: true},
		{name: "leased while it runs", slow: true}, {name: "at most once", once: true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
			if c.byLease {
				crashLately(t, pool, "house")
			}
			o := &outcomes{t: t, pool: pool}
			client := open(t, pool, sqlq.Config{Routes: choreRoute, HoldLimit: 10 * time.Millisecond})
			var tried sync.Map
			do := func(ctx context.Context, d *sqlq.Delivery[chore]) error {
				if c.slow {
					select {
					case <-time.After(40 * time.Millisecond):
					case <-ctx.Done():
					}
				}
				switch d.Message.Do {
				case "send":
					return d.Send(entry{})
				case "fail":
					return sqlq.Unrecoverable(errors.New("no water"))
				case "retry":
					return errors.New("no water")
				case "give back":
					return sqlq.GiveBack(time.Hour, "closed")
				case "give back at once":
					if _, again := tried.LoadOrStore(d.ID, true); !again {
						return sqlq.GiveBack(0, "closed")
					}
				}
				return nil
			}
			handler := sqlq.Handle(do)
			if c.inTx {
				handler = sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[chore]) error { return do(ctx, d) })
			}
			e := sqlq.Endpoint{Name: "house", Concurrency: 3, AtMostOnce: c.once, UnknownWait: -1, Settled: o.settled, Handlers: []sqlq.Handler{handler},
				Retry: sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Hour}}}
			lost := " (its endpoint is AtMostOnce: the message has left its queue, and its handler is not called again; replay it if it may be)"
			want := map[string]string{"": "complete 1: <nil>", "send": "complete 1: <nil>", "fail": "fail 1: no water", "retry": "retry 2: no water",
				"give back": "wait 1: given back by its handler: closed", "give back at once": "wait 1: given back by its handler: closed|complete 1: <nil>", "unknown": "fail 1: ", "expired": "expired 0: <nil>"}
			if c.once {
				e.Retry = sqlq.RetryPolicy{}
				want["retry"], want["give back"], want["give back at once"] = "fail 1: no water", "fail 1: given back by its handler: closed"+lost, "fail 1: given back by its handler: closed"+lost
			}
			ids := map[string]sqlq.ID{}
			for do := range want {
				ids[do] = sqlq.NewID()
				var err error
				switch do {
				case "unknown":
					err = client.Send(t.Context(), titled{Type: "house.Strange"}, sqlq.To("house"), sqlq.WithID(ids[do]))
				case "expired":
					err = client.Send(t.Context(), chore{}, sqlq.ExpiresIn(time.Microsecond), sqlq.WithID(ids[do]))
				default:
					err = client.Send(t.Context(), chore{Do: do}, sqlq.WithID(ids[do]), sqlq.WithHeader("do", do))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			stop := run(t, client, e)
			for do, w := range want {
				eventually(t, do, func() (bool, string) {
					got := o.of(ids[do])
					return slices.EqualFunc(got, strings.Split(w, "|"), func(got, w string) bool {
						return got == w || strings.HasSuffix(w, ": ") && strings.HasPrefix(got, w)
					}), fmt.Sprintf("%q, want %q", got, w)
				})
			}
			stop()
			for do, w := range want {
				if got := o.of(ids[do]); len(got) != 1+strings.Count(w, "|") {
					t.Errorf("%s: told %q", do, got)
				}
			}
			for _, s := range o.all {
				if s.Endpoint != "house" || s.Headers == nil || s.SentAt.IsZero() || s.Type != "house.Strange" && s.Type != "house.Chore" || ids[s.Headers["do"]] != s.ID && s.Headers["do"] != "" {
					t.Errorf("%+v", s)
				}
				if (s.Outcome == sqlq.OutcomeRetry && s.Attempt == 2 || s.Outcome == sqlq.OutcomeWait) && s.Delay < 48*time.Minute && s.Delay != 0 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// Nothing is told of a settle whose commit fails, or is lost with the connection; what follows is.
func TestSettledIsNotToldOfWhatWasNotCommitted(t *testing.T) {
	t.Parallel()
	t.Run("sent to nowhere", func(t *testing.T) {
		t.Parallel()
		pool := newPool(t)
		execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
		o := &outcomes{t: t, pool: pool}
		client := open(t, pool, sqlq.Config{Routes: choreRoute})
		bad, good := sqlq.NewID(), sqlq.NewID()
		if err := errors.Join(client.Send(t.Context(), chore{Do: "to nowhere"}, sqlq.WithID(bad)), client.Send(t.Context(), chore{}, sqlq.WithID(good))); err != nil {
			t.Fatal(err)
		}
		stop := run(t, client, sqlq.Endpoint{Name: "house", Retry: noRetry, Settled: o.settled, Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error { return misbehave(d) })})
		o.wants("the good one", good, "complete 1: <nil>")
		eventually(t, "the bad one", func() (bool, string) { return len(o.of(bad)) == 1, fmt.Sprint(o.of(bad)) })
		stop()
		if got := append(o.of(bad), o.of(good)...); len(got) != 2 || !strings.HasPrefix(got[0], "fail 1: settle: no such queue") {
			t.Errorf("%q", got)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		pool := newPool(t)
		execSQL(t, pool, `SELECT sqlq.create_queue('house'); CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO once VALUES (7)`)
		o := &outcomes{t: t, pool: pool}
		client := open(t, pool, sqlq.Config{Routes: choreRoute})
		ids := make([]sqlq.ID, 20)
		for n := range ids {
			ids[n] = sqlq.NewID()
			if err := client.Send(t.Context(), chore{N: n}, sqlq.WithID(ids[n])); err != nil {
				t.Fatal(err)
			}
		}
		stop := run(t, client, sqlq.Endpoint{Name: "house", Retry: noRetry, Settled: o.settled, Handlers: []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[chore]) error {
			_, err := tx.Exec(ctx, `INSERT INTO public.once VALUES ($1)`, d.Message.N)
			return err
		})}})
		eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_house`)
		eventually(t, "all are told", func() (bool, string) { return o.count() >= len(ids), fmt.Sprint(o.count(), " told") })
		stop()
		for n, id := range ids {
			if got := o.of(id); len(got) != 1 || (n == 7) != strings.HasPrefix(got[0], "fail 1: ") || n != 7 && got[0] != "complete 1: <nil>" {
				t.Errorf("%d: %q", n, got)
			}
		}
	})
	for _, delivered := range []bool{false, true} {
		t.Run(fmt.Sprint("lost at the commit, which took place: ", delivered), func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			watch := poolOn(t, url)
			execSQL(t, watch, `SELECT sqlq.create_queue('house')`)
			config, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			cut := &cutAtRemoval{delivered: delivered, dial: config.ConnConfig.DialFunc, gone: func() {
				eventuallyCount(t, watch, 0, `SELECT count(*) FROM sqlq.q_house`)
			}}
			config.ConnConfig.DialFunc = cut.connect
			config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			o := &outcomes{t: t, pool: watch}
			client := open(t, pool, sqlq.Config{Routes: choreRoute})
			lost, later := sqlq.NewID(), sqlq.NewID()
			if err := client.Send(t.Context(), chore{}, sqlq.WithID(lost)); err != nil {
				t.Fatal(err)
			}
			stop := run(t, client, sqlq.Endpoint{Name: "house", Settled: o.settled, Handlers: chores(func(context.Context, *sqlq.Delivery[chore]) error { return nil })})
			eventually(t, "the connection was cut", func() (bool, string) { return cut.done.Load(), "" })
			eventuallyCount(t, watch, 0, `SELECT count(*) FROM sqlq.q_house`)
			if err := client.Send(t.Context(), chore{}, sqlq.WithID(later)); err != nil {
				t.Fatal(err)
			}
			o.wants("the later one", later, "complete 1: <nil>")
			stop()
			if n := len(o.of(lost)); delivered && n != 0 || !delivered && n != 1 {
				t.Errorf("told %q of the lost one", o.of(lost))
			}
		})
	}
}

// The drain's end interrupts handlers: their messages go back, and that is told once; of those that were not begun nothing is.
func TestSettledIsToldOfWhatTheDrainGivesBack(t *testing.T) {
	t.Parallel()
	for _, leased := range []bool{false, true} {
		t.Run(fmt.Sprint("leased ", leased), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{}'::json, ARRAY[20]))`)
			o := &outcomes{t: t, pool: pool}
			config := sqlq.Config{Routes: choreRoute, DrainTimeout: 20 * time.Millisecond, HoldLimit: 5 * time.Second}
			if leased {
				config.HoldLimit = 10 * time.Millisecond
			}
			client := open(t, pool, config)
			var begun atomic.Int32
			stop := run(t, client, sqlq.Endpoint{Name: "house", Concurrency: 4, Settled: o.settled, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
				begun.Add(1)
				<-ctx.Done()
				return ctx.Err()
			})})
			eventually(t, "handlers run", func() (bool, string) {
				return begun.Load() == 4 && (!leased || count(t, pool, `SELECT count(*) FROM sqlq.leased`) >= 4), fmt.Sprint(begun.Load(), " begun")
			})
			stop()
			undone := 0
			for _, s := range o.all {
				if s.Outcome == sqlq.OutcomeUndone && s.Attempt == 1 {
					undone++
				}
			}
			if left := count(t, pool, `SELECT count(*) FROM sqlq.q_house WHERE attempt = 0`); undone != 4 || o.count() != 4 || left != 20 {
				t.Errorf("%d of 4 are told as undone, %d told in all, %d of 20 are back", undone, o.count(), left)
			}
		})
	}
}

// A func that panics or ends its goroutine is called for the next outcome all the same, and may send; one that is slow keeps the endpoint
// from fetching on and on, and loses nothing.
func TestSettledThatMisbehaves(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('ledger'), sqlq.create_queue('house'), sqlq.send_many('house', 'house.Chore', array_fill('{}'::json, ARRAY[6000]))`)
	var said logged
	client := open(t, pool, sqlq.Config{Routes: choreRoute, BatchLimit: 100, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	var calls, handled atomic.Int32
	goOn := make(chan struct{})
	run(t, client, sqlq.Endpoint{Name: "house", Handlers: chores(func(context.Context, *sqlq.Delivery[chore]) error { handled.Add(1); return nil }),
		Settled: func(ctx context.Context, s sqlq.Settled) {
			switch calls.Add(1) {
			case 1:
				panic("oh")
			case 2:
				runtime.Goexit()
			case 3:
				if err := client.Send(ctx, entry{}); err != nil {
					t.Error(err)
				}
				<-goOn
			}
		}})
	eventually(t, "nothing more is fetched", func() (bool, string) {
		left := count(t, pool, `SELECT count(*) FROM sqlq.q_house`)
		return calls.Load() == 3 && handled.Load() >= 1_000 && left+int(handled.Load()) == 6_000, fmt.Sprint(calls.Load(), " calls, ", handled.Load(), " handled, ", left, " left")
	})
	if n := handled.Load(); n > 4_000 {
		t.Errorf("%d of 6,000 messages were handled while the first outcomes were being told", n)
	}
	close(goOn)
	eventually(t, "all are told", func() (bool, string) { return calls.Load() == 6_000, fmt.Sprint(calls.Load(), " calls") })
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_ledger`); n != 1 || !strings.Contains(said.all(), "Endpoint.Settled panicked") {
		t.Errorf("%d sent; the log: %s", n, said.all())
	}
}
