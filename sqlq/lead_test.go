package sqlq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// A leader that ends in order is followed at once: delayed messages are not late because processes are replaced by others.
func TestLeadIsHandedOver(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	var said logged
	config := sqlq.Config{LeaseTime: time.Minute, Logger: said.logger()} // heartbeats 5 s apart
	sender := open(t, pool, sqlq.Config{})
	old := runPost(t, pool, config, "post")
	for i := range 5 {
		next := runPost(t, pool, config, "post")
		eventually(t, "both run and listen", func() (bool, string) {
			return old.Stats().Listening && next.Stats().Listening && count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NULL`) == 2, ""
		})
		old.stop()
		next.soon(t, 3*time.Second, func() error { // without it: after a heartbeat, 5 s
			return sender.Send(t.Context(), letter{N: i}, sqlq.To("post"), sqlq.Delay(10*time.Millisecond))
		})
		old = next
	}
	if text := said.all(); text != "" {
		t.Errorf("they take one another for strangers, or complain:\n%s", text)
	}
}

// An idle fleet holds few of the server's advisory locks: one for each process on each of its two connections that have a
// session, two for each queue, whoever sleeps on it, and the leader's.
func TestLocksOfAFleet(t *testing.T) {
	t.Parallel()
	const processes, queues = 3, 10
	pool := newPool(t)
	var clients []*sqlq.Client
	for range processes {
		c := open(t, pool, sqlq.Config{})
		var endpoints []sqlq.Endpoint
		for i := range queues {
			endpoints = append(endpoints, sqlq.Endpoint{Name: fmt.Sprint("q", i), Handlers: []sqlq.Handler{
				sqlq.Handle(func(context.Context, *sqlq.Delivery[posted]) error { return nil }),
			}})
		}
		run(t, c, endpoints...)
		clients = append(clients, c)
	}
	eventually(t, "all sleep", func() (bool, string) {
		for _, c := range clients {
			all := c.Stats().Endpoints
			for _, e := range all {
				if e.Waits != sqlq.Notified && e.Waits != sqlq.OnCall {
					return false, fmt.Sprint(e.Name, " waits ", e.Waits)
				}
			}
			if len(all) == 0 {
				return false, "one does not run yet"
			}
		}
		return true, ""
	})
	const locks = `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	eventuallyCount(t, pool, 2*processes+2*queues+1, locks)
	if n := count(t, pool, `SELECT count(DISTINCT coalesce(process, id)) FROM sqlq.instance`); n != processes {
		t.Errorf("%d processes, want %d", n, processes)
	}
}

// An instance that was thought dead goes on under another number and the lock of its process, and nobody takes it for dead.
func TestNewNumberKeepsTheLock(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post'), sqlq.create_queue('other')`)
	config := sqlq.Config{LeaseTime: time.Second}
	run(t, open(t, pool, config), receiveLetters("other"))
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	p := runPost(t, pool, config, "post", "second")
	eventuallyCount(t, pool, 3, `SELECT count(*) FROM sqlq.instance`)
	for range 2 {
		execSQL(t, pool, `UPDATE sqlq.instance SET crashed_at = now() WHERE endpoint = 'post' AND crashed_at IS NULL`)
		eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance WHERE endpoint = 'post' AND crashed_at IS NULL`)
	}
	beats(t, pool, "other") // the leader looks for the dead each time
	beats(t, pool, "second")
	if n := count(t, pool, `SELECT count(*) FROM sqlq.instance i WHERE crashed_at IS NULL AND coalesce(process, id) = (SELECT min(id) FROM sqlq.instance WHERE pid = i.pid AND endpoint <> 'other')
		AND endpoint <> 'other'`); n != 2 {
		t.Errorf("%d of two instances have the lock of their process", n)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE crashed_at IS NOT NULL`); n != 2 {
		t.Errorf("%d instances were thought dead, want the two that were marked", n)
	}
	p.soon(t, patience, func() error { return p.Send(t.Context(), letter{}, sqlq.To("post")) })
}
