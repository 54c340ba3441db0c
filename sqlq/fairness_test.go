package sqlq_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// A message whose transaction commits after those with higher numbers have been received is found while there is a backlog,
// without a look from the left end.
func TestLateCommitIsNotLeftBehind(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	const before, backlog = 500, 20_000
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, BatchLimit: 50})
	sendN(t, c, 0, before)
	late := begin(t, pool)
	execTx(t, late, insertChore, 1_000_000)
	sendN(t, c, 5000, backlog)
	tick := time.NewTicker(time.Millisecond) // the pace of all handlers together
	defer tick.Stop()
	var handled atomic.Int64
	ended := make(chan struct{})
	passed, found := make(chan struct{}), make(chan int64, 1)
	stop := run(t, c, sqlq.Endpoint{Name: "house", Concurrency: 4, Handlers: chores(func(ctx context.Context, d *sqlq.Delivery[chore]) error {
		select {
		case <-tick.C:
		case <-ended:
		}
		n := handled.Add(1)
		if n == 2000 {
			close(passed)
		}
		if d.Message.N == 1_000_000 {
			found <- n
		}
		return nil
	})})
	defer stop()
	defer close(ended)
	eventually(t, "the endpoint runs", func() (bool, string) { return handled.Load() > 100, "" })
	c.LookFromLowNever("house")
	<-passed
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-found:
		if n > backlog/2 {
			t.Errorf("it was the %d. of %d that was handled", n, before+backlog+1)
		}
	case <-time.After(2 * patience):
		t.Error("it was not handled")
	}
}
