package sqlq

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// cutWithin is how long Close waits at most for the end of a drain that it has cut short: for handlers that heed their context,
// then for receivers and keeper.
const cutWithin = heedWithin + 3*endWithin

// heedWithin is how long handlers have to return once their contexts have ended.
const heedWithin = 2 * time.Second

// awaitEnd waits for the end of groups that drain. When ctx ends it cuts the drain short and waits for that, within reason.
func awaitEnd(ctx context.Context, groups ...*group) error {
	haveEnded := func(before <-chan struct{}) bool {
		for _, g := range groups {
			select {
			case <-g.ended:
				continue
			default:
			}
			select {
			case <-g.ended:
			case <-before:
				return false
			}
		}
		return true
	}
	if haveEnded(ctx.Done()) {
		return nil
	}
	for _, g := range groups {
		g.cutShort()
	}
	cut, cancel := context.WithTimeout(context.Background(), cutWithin)
	defer cancel()
	if !haveEnded(cut.Done()) {
		return fmt.Errorf("the drain was cut short, and has not come to its end within %v: %w", cutWithin, ctx.Err())
	}
	return fmt.Errorf("the drain was cut short; what handlers had not finished went back: %w", ctx.Err())
}

// drain lets the handlers finish, and gives back what they do not finish in time, or before the drain is cut short.
func (g *group) drain() {
	for _, in := range g.instances {
		in.enter(draining)
		in.bell.Overflow() // others take over the watch
		in.hand.drain()
		in.hand.giveBackWaiting()
		in.hand.releaseKept()
		g.run.dispatcher.cut(in)
	}
	g.run.dispatcher.kick()
	deadline := time.NewTimer(g.run.client.config.DrainTimeout)
	defer deadline.Stop()
	hurry := g.hurry.Done()
	for g.inHand() > 0 {
		select {
		case <-g.emptied:
			continue
		case <-deadline.C:
			if hurry == nil {
				return
			}
		case <-hurry:
		}
		hurry = nil
		g.cancelHandlers()
		for _, in := range g.instances {
			in.hand.giveBackAll()
		}
		g.run.dispatcher.kick()
		deadline.Reset(heedWithin)
	}
}

func (g *group) inHand() (n int) {
	for _, in := range g.instances {
		inHand, _ := in.hand.count()
		n += inHand
	}
	return n
}

// settleRest waits until receivers have stored what became of the group's messages, and leaves handlers behind that keep them from it.
// It reports whether receivers have nothing more to do for the group.
func (g *group) settleRest() bool {
	deadline := time.NewTimer(endWithin)
	defer deadline.Stop()
	for g.toStore() > 0 {
		select {
		case <-g.emptied:
		case <-deadline.C:
			g.abandon()
			return false
		}
	}
	return true
}

func (g *group) toStore() (n int) {
	for _, in := range g.instances {
		_, toStore := in.hand.count()
		n += toStore
	}
	return n
}

// endLife ends the timers, and waits for the slots unless handlers are left behind in them.
func (g *group) endLife() {
	within := endWithin
	for _, in := range g.instances {
		if slots, _ := in.hand.working(false); slots > 0 {
			within = 0
		}
	}
	if !g.life.end(within) {
		g.run.client.log.Error("sqlq: handlers ignore that their context has ended; leaving them behind")
	}
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

// abandon has others take the places of receivers whose HandleTx handlers of the group do not end, and ends their sessions, so that
// others can have what these hold.
func (g *group) abandon() {
	var left []*receiver
	for _, rec := range g.run.receivers.now() {
		if d := rec.handling.Load(); d != nil && d.batch.in.group == g {
			left = append(left, rec)
		}
	}
	if len(left) == 0 {
		return
	}
	g.run.client.log.Error("sqlq: a handler ignores that its context has ended; leaving it behind")
	g.run.replace(left)
}

// replace has other receivers serve in place of those whose handlers do not end, and ends the sessions of these.
func (r *runner) replace(left []*receiver) {
	for _, rec := range left {
		rec.replaced.Store(true)
		r.dispatcher.leftBehind(1)
		r.client.mu.Lock()
		r.receivers.remove(rec)
		r.client.mu.Unlock()
	}
	r.cutOff(left)
	for _, rec := range left {
		r.hire(newReceiver(r, rec.spare))
	}
}

// dismissReceivers waits for the receivers to return, once the dispatcher is closed. If that takes too long their statements are cancelled
// and their sessions ended.
func (r *runner) dismissReceivers(settled bool) {
	within := endWithin
	if !settled { // they were waited for
		within = endWithin / 20
	}
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	all := r.receivers.now()
	for _, rec := range all {
		select {
		case <-rec.ended:
			continue
		case <-deadline.C:
		}
		r.cancelHard()
		r.cutOff(all)
		return
	}
}

// cutOff ends the sessions of receivers.
func (r *runner) cutOff(receivers []*receiver) {
	var pids []int32
	for _, rec := range receivers {
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
