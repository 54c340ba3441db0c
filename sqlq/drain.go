package sqlq

import (
	"context"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// cutWithin is how long Close waits at most for the end of a drain that it has cut short: for handlers that heed their context,
// then for receivers and keeper.
const cutWithin = heedWithin + 3*endWithin

// heedWithin is how long handlers have to return once their contexts have ended.
const heedWithin = 2 * time.Second

// drain lets the handlers finish, and gives back what they do not finish in time, or before the drain is cut short.
func (r *runner) drain(cancelHandlers context.CancelFunc) {
	r.dispatcher.drain()
	for _, in := range r.instances {
		in.bell.Overflow() // others take over the watch
		in.hand.drain()
		in.hand.giveBackWaiting()
		in.hand.releaseKept()
	}
	r.dispatcher.kick()
	deadline := time.NewTimer(r.client.config.DrainTimeout)
	defer deadline.Stop()
	hurry := r.hurry.Done()
	for r.inHand() > 0 {
		select {
		case <-r.emptied:
			continue
		case <-deadline.C:
			if hurry == nil {
				return
			}
		case <-hurry:
		}
		hurry = nil
		cancelHandlers()
		for _, in := range r.instances {
			in.hand.giveBackAll()
		}
		r.dispatcher.kick()
		deadline.Reset(heedWithin)
	}
}

func (r *runner) inHand() (n int) {
	for _, in := range r.instances {
		n += in.hand.count()
	}
	return n
}

// endWithin is how long the receivers, and then the keeper, may take to end once they have nothing more to do.
const endWithin = 5 * time.Second

// waitFor waits for a group, but not longer than within, and says whether it has ended.
func waitFor(g *sync.WaitGroup, within time.Duration) bool {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(within):
		return false
	}
}

// abandon ends the sessions of receivers whose HandleTx handlers do not end, so that others can have what they hold.
func (r *runner) abandon() {
	var pids []int32
	for _, rec := range r.receivers {
		if pid := rec.pid.Load(); pid != 0 {
			pids = append(pids, int32(pid))
		}
		if socket := rec.socket.Load(); socket != nil {
			(*socket).Close() // the pooler rolls back
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.client.store.Sessions.End(ctx, r.client.pool, string(session.Receive), pids); err != nil {
		r.client.log.Warn("sqlq: cannot end the session of a handler that is left behind; the server will, when it has idled too long", "err", err)
	}
}
