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
	r.schedule.drain()
	for _, in := range r.instances {
		in.bell.Overflow() // others take over the watch
		in.mu.Lock()
		in.drains = true
		in.mu.Unlock()
		in.giveBackWaiting()
		in.releaseKept()
	}
	r.schedule.kick()
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
			in.giveBackAll()
		}
		r.schedule.kick()
		deadline.Reset(heedWithin)
	}
}

// giveBackWaiting returns leased and removed messages that have not begun to their queue; held ones go with their batch.
func (in *instance) giveBackWaiting() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, b := range in.batches {
		if b.custody.isSingle() {
			in.unstart(b)
		}
	}
}

// giveBackAll returns every leased message whose handler has not finished; what the handler does yet is not recorded.
func (in *instance) giveBackAll() {
	in.giveBackWaiting()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.recalls = true
	for _, d := range in.leases {
		switch d.state {
		case lined:
			in.returnUnbegun(d)
		case running:
			in.recall(d)
		}
	}
}

// recall takes a leased message back from its handler, which runs on.
func (in *instance) recall(d *delivery) {
	in.client.log.Warn("sqlq: a handler did not finish before the drain ended; its message goes back", "endpoint", in.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id)
	d.back = true
	in.move(d, recalled)
	in.finished = append(in.finished, d)
}

// returnUnbegun gives a leased or removed message back whose handler has not begun.
func (in *instance) returnUnbegun(d *delivery) {
	d.outcome = outcome{verdict: giveBack}
	in.queueDecided(d)
}

func (r *runner) inHand() (n int) {
	for _, in := range r.instances {
		in.mu.Lock()
		n += in.inHand()
		in.mu.Unlock()
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
