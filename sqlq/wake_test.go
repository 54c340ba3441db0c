package sqlq_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

var (
	wakeSeed  = flag.Uint64("wake.seed", 0, "seed of the wake-up tests; 0: a random one")
	wakeSends = flag.Int("wake.sends", 400, "messages that each of the six senders of a wake-up test sends")
)

// wakeWithin is how soon after its commit a message must be handled. A wake-up takes milliseconds; a lost one, with an
// hour's poll interval, for ever.
const wakeWithin = 5 * time.Second

// A command has one endpoint in a process, so that each queue of the wake-up tests has a type of its own.
type nudge[Q wakeQueue] struct{ Key string }

type wakeQueue interface{ name() string }

type (
	wakeA struct{}
	wakeB struct{}
	wakeC struct{}
	wakeD struct{}
)

func (wakeA) name() string { return "a" }
func (wakeB) name() string { return "b" }
func (wakeC) name() string { return "c" }
func (wakeD) name() string { return "d" }

func (nudge[Q]) MessageType() string { var q Q; return "wake." + q.name() }

var nudges = map[string]func(key string) sqlq.Message{
	"a": func(key string) sqlq.Message { return nudge[wakeA]{key} },
	"b": func(key string) sqlq.Message { return nudge[wakeB]{key} },
	"c": func(key string) sqlq.Message { return nudge[wakeC]{key} },
	"d": func(key string) sqlq.Message { return nudge[wakeD]{key} },
}

var wakeRoutes = map[string]string{"wake.a": "a", "wake.b": "b", "wake.c": "c", "wake.d": "d"}

// wakeEndpoints are the endpoints of every receiving process. Their handlers report the key.
func wakeEndpoints(handled func(key string)) []sqlq.Endpoint {
	return []sqlq.Endpoint{
		{Name: "a", Concurrency: 1, Handlers: []sqlq.Handler{onNudge[wakeA](handled)}},
		{Name: "b", Concurrency: 4, Handlers: []sqlq.Handler{onNudge[wakeB](handled)}},
		{Name: "c", Concurrency: 1, Handlers: []sqlq.Handler{onNudgeInTx[wakeC](handled)}},
		{Name: "d", Concurrency: 4, Handlers: []sqlq.Handler{onNudgeInTx[wakeD](handled)}},
	}
}

func onNudge[Q wakeQueue](handled func(key string)) sqlq.Handler {
	return sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[nudge[Q]]) error { handled(d.Message.Key); return nil })
}

func onNudgeInTx[Q wakeQueue](handled func(key string)) sqlq.Handler {
	return sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[nudge[Q]]) error {
		handled(d.Message.Key)
		return nil
	})
}

var wakeConfig = sqlq.WithStandbyEvery(sqlq.Config{Routes: wakeRoutes, PollInterval: time.Hour, ReceiveConnections: 2}, time.Hour)

// wakeChild is the environment variable that makes this test binary a receiving process, on the database that it names.
const wakeChild = "SQLQ_TEST_WAKE_CHILD"

func init() {
	if url := os.Getenv(wakeChild); url != "" {
		if err := receiveAsChild(url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// receiveAsChild runs the endpoints until standard input ends, and writes the key of each message to standard output.
func receiveAsChild(url string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent, too
		cancel()
	}()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	c, err := sqlq.Open(ctx, pool, wakeConfig)
	if err != nil {
		return err
	}
	return c.Run(ctx, wakeEndpoints(func(key string) { fmt.Println(key) })...)
}

// No wake-up is lost: a message is handled soon after its commit whenever its receivers fall asleep, however it is sent,
// and however long its transaction was open. Polling would come too late.
func TestWakeUps(t *testing.T) {
	t.Parallel()
	t.Run("two processes", func(t *testing.T) {
		t.Parallel()
		w := newWake(t)
		w.process()
		w.process()
		w.race(w.client())
	})
	t.Run("the sender's process and another", func(t *testing.T) {
		t.Parallel()
		w := newWake(t)
		c := w.client()
		w.process()
		run(t, c, wakeEndpoints(w.handled)...)
		w.race(c)
	})
	t.Run("listeners die", func(t *testing.T) {
		t.Parallel()
		w := newWake(t)
		w.faults = true
		w.sends = max(1, w.sends/4) // after each fault somebody polls for a while
		w.process()
		w.process()
		w.race(w.client())
	})
}

// A process whose slots are all taken leaves messages to others, also when it fell asleep before and when its handlers
// have been quick so far.
func TestBusyProcessLeavesMessagesToOthers(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(handle func(quick bool)) sqlq.Handler{
		"Handle": func(handle func(quick bool)) sqlq.Handler {
			return sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[chore]) error { handle(!d.Message.Slow); return nil })
		},
		"HandleTx": func(handle func(quick bool)) sqlq.Handler {
			return sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[chore]) error { handle(!d.Message.Slow); return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
			var quick, busy atomic.Int64
			finish := make(chan struct{})
			config := sqlq.WithStandbyEvery(sqlq.Config{Routes: choreRoute, PollInterval: time.Hour, ReceiveConnections: 2}, time.Hour)
			var clients []*sqlq.Client
			for range 2 {
				c := open(t, pool, config)
				clients = append(clients, c)
				stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 2, Handlers: []sqlq.Handler{handler(func(isQuick bool) {
					if isQuick {
						quick.Add(1)
						return
					}
					busy.Add(1)
					<-finish
				})}})
				defer stop()
			}
			defer close(finish)
			var ms []sqlq.Message
			for range 300 {
				ms = append(ms, chore{})
			}
			if err := clients[0].SendMany(t.Context(), ms); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the quick ones are handled", func() (bool, string) { return quick.Load() == 300, fmt.Sprint(quick.Load()) })
			for i := range 4 {
				if name == "HandleTx" { // those that are received together wait for each other
					eventually(t, "the message has a slot", func() (bool, string) { return busy.Load() == int64(i), fmt.Sprint(busy.Load()) })
				}
				if err := clients[0].Send(t.Context(), chore{N: i, Slow: true}); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "each of the four slots has a message", func() (bool, string) { return busy.Load() == 4, fmt.Sprint(busy.Load()) })
		})
	}
}
