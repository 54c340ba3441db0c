package sqlq_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// HandleTx handlers that run for long have their connections, but nobody else waits for them: neither other endpoints of the
// process, with such handlers of their own or without, nor the settle of what is leased.
func TestSlowHandleTxKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	for _, connections := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(connections, " connections"), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['slow', 'plain', 'quick']) q`)
			goOn := make(chan struct{})
			var running, quick, plain, leased atomic.Int32
			slow := sqlq.Endpoint{Name: "slow", Concurrency: 20, Handlers: []sqlq.Handler{
				sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error {
					running.Add(1)
					<-goOn
					return nil
				}),
				sqlq.Handle(func(context.Context, *sqlq.Delivery[hop]) error { // leased, and ends when HandleTx handlers have the connections
					eventually(t, "connections taken", func() (bool, string) { return int(running.Load()) >= max(1, connections-1), "" })
					leased.Add(1)
					return nil
				})}}
			endpoints := []sqlq.Endpoint{slow, {Name: "plain", Handlers: []sqlq.Handler{
				sqlq.Handle(func(context.Context, *sqlq.Delivery[peril]) error { plain.Add(1); return nil })}}}
			if connections > 1 { // with one they take turns
				endpoints = append(endpoints, sqlq.Endpoint{Name: "quick", Handlers: []sqlq.Handler{
					sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[aftermath]) error { quick.Add(1); return nil })}})
			}
			client := open(t, pool, sqlq.Config{ReceiveConnections: connections, HoldLimit: 20 * time.Millisecond})
			execSQL(t, pool, `SELECT sqlq.send('slow', 'post.Hop', '{}')`)
			execSQL(t, pool, `SELECT sqlq.send('slow', 'post.Letter', '{}') FROM generate_series(1, 20)`)
			run(t, client, endpoints...)
			free := sync.OnceFunc(func() { close(goOn) })
			t.Cleanup(free) // before Run drains
			eventually(t, "slow handlers", func() (bool, string) { return int(running.Load()) >= max(1, connections-1), fmt.Sprint(running.Load()) })
			eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.leased`)
			for i := range int32(5) {
				execSQL(t, pool, `SELECT sqlq.send('plain', 'crash.Peril', '{}'), sqlq.send('quick', 'crash.Aftermath', '{}')`)
				eventually(t, "a plain message", func() (bool, string) { return plain.Load() == i+1, "" })
				eventually(t, "a message of another HandleTx handler", func() (bool, string) { return quick.Load() == i+1 || connections == 1, "" })
			}
			if n := running.Load(); leased.Load() != 1 || int(n) > connections {
				t.Errorf("%d leased messages, %d slow handlers", leased.Load(), n)
			}
			free()
			eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_slow`)
		})
	}
}

// An endpoint with HandleTx handlers that is alone in its process has all connections.
func TestHandleTxAloneHasAllConnections(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('slow')`)
	var running atomic.Int32
	goOn := make(chan struct{})
	execSQL(t, pool, `SELECT sqlq.send('slow', 'post.Letter', '{}') FROM generate_series(1, 20)`)
	run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "slow", Concurrency: 20, Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error {
			running.Add(1)
			<-goOn
			return nil
		})}})
	t.Cleanup(func() { close(goOn) })
	eventually(t, "handlers on all connections", func() (bool, string) { return running.Load() == 4, fmt.Sprint(running.Load()) })
}
