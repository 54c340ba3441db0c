package sqlq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/sqlq/sqlq/sqlq/internal/presence"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// group is the endpoints that one call of Run or Start takes up: they begin together or not at all, drain together, and end
// together. Its fields are unchanged once it has begun, but for what the sync types guard.
type group struct {
	run       *runner
	endpoints []Endpoint
	ofRun     bool // and not of Start
	instances []*instance
	emptied   chan struct{} // filled when an instance that drains has less in hand
	life      life

	preparing context.Context // of what comes before the first message; ends with the caller's, or when the group is stopped
	giveUp    context.CancelFunc
	ctx       context.Context // has the values of the caller's and does not end

	handlerCtx     context.Context // of the handlers: ends with the drain's patience
	cancelHandlers context.CancelFunc
	hurry          context.Context // ended: the drain waits for handlers no longer
	cutShort       context.CancelFunc
	attending      context.Context // of the goroutines that attend to the bells
	stopAttending  context.CancelFunc
	attendants     sync.WaitGroup

	leaving  bool // it has drained; Client.mu guards it
	stopping sync.Once
	stopped  chan struct{} // closed when it is to drain
	ended    chan struct{} // closed when it has ended
}

func newGroup(ctx context.Context, r *runner, endpoints []Endpoint) *group {
	g := &group{run: r, endpoints: endpoints, emptied: make(chan struct{}, 1), stopped: make(chan struct{}), ended: make(chan struct{})}
	g.preparing, g.giveUp = context.WithCancel(ctx)
	g.ctx = context.WithoutCancel(ctx)
	g.handlerCtx, g.cancelHandlers = context.WithCancel(context.WithValue(g.ctx, handlerContext{}, true))
	g.hurry, g.cutShort = context.WithCancel(g.ctx)
	g.attending, g.stopAttending = context.WithCancel(g.ctx)
	return g
}

// besides refuses endpoints that cannot run beside those that do.
func besides(running, endpoints []Endpoint) error {
	var errs []error
	for _, e := range endpoints {
		for _, other := range running {
			if other.Name == e.Name {
				return fmt.Errorf("%w: endpoint %q; stop that one first, or raise its Concurrency", ErrAlreadyRunning, e.Name)
			}
			for _, h := range e.Handlers {
				if !h.event && other.handles(h.messageType) {
					errs = append(errs, fmt.Errorf("%w %q: command %q has a handler in endpoint %q too, which runs; a command has one receiver; remove one", ErrInvalidEndpoint, e.Name, h.messageType, other.Name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// handles reports whether an endpoint has a handler of its own for a message type.
func (e *Endpoint) handles(messageType string) bool {
	for _, h := range e.Handlers {
		if h.messageType == messageType {
			return true
		}
	}
	return false
}

// begin prepares the endpoints and has them receive. After an error nothing of the group is left.
func (g *group) begin() error {
	r := g.run
	err := r.prepare(g.preparing, g.endpoints)
	if err == nil {
		for _, e := range g.endpoints {
			g.instances = append(g.instances, newInstance(g, e))
		}
		err = r.admit(g.preparing, g)
	}
	if err != nil {
		g.depart(true)
		return err
	}
	r.listener.Add(g.bells()...)
	for _, in := range g.instances {
		in.enter(serving)
	}
	r.hireSpare()
	for _, in := range g.instances {
		g.attendants.Go(func() { in.bell.Attend(g.attending) })
	}
	return nil
}

func (g *group) bells() (bells []*wakeup.Bell) {
	for _, in := range g.instances {
		bells = append(bells, in.bell)
	}
	return bells
}

func (g *group) members() (members []*presence.Member) {
	for _, in := range g.instances {
		members = append(members, in.member)
	}
	return members
}

// stop has the group drain; one that has not begun does not.
func (g *group) stop() {
	g.stopping.Do(func() {
		close(g.stopped)
		g.giveUp()
	})
}

func (g *group) isStopped() bool {
	select {
	case <-g.stopped:
		return true
	default:
		return false
	}
}

// end drains the group and ends it.
func (g *group) end() {
	g.stop()
	g.drain()
	settled := g.settleRest()
	g.endLife()
	g.stopAttending()
	g.attendants.Wait()
	for _, in := range g.instances {
		in.hand.nameLost()
		in.enter(over)
	}
	g.depart(settled)
	g.run.client.config.messages.flush()
}

// depart leaves the runner and, if the group is the last, ends it. settled is for runner.end.
func (g *group) depart(settled bool) {
	r := g.run
	last := r.isLast(g)
	switch {
	case last:
		r.awaitOthers()
		if r.isUp() {
			r.end(settled)
		}
	case g.hasBegun():
		g.resign()
	}
	if r.leave(g); !last && r.isEnding() {
		<-r.ended
	}
	g.giveUp()
	g.cutShort()
	g.cancelHandlers()
	g.stopAttending()
	close(g.ended)
}

// resign has the listener and the keeper forget the group, while they go on for others.
func (g *group) resign() {
	r := g.run
	ctx, cancel := context.WithTimeout(g.ctx, endWithin)
	defer cancel()
	defer context.AfterFunc(r.closing, cancel)() // the end does what is left
	r.listener.Remove(ctx, g.bells()...)
	if err := r.keeper.Leave(ctx, g.members()); err != nil && !r.isEnding() {
		r.client.log.Warn("sqlq: cannot record the end of an instance yet; it is recorded when the database answers", "endpoint", g.endpoints[0].Name, "err", err)
	}
}

// hasBegun reports whether the group's endpoints have received.
func (g *group) hasBegun() bool {
	return len(g.instances) > 0 && g.instances[0].phase.isOver()
}

// lifePhase is where an instance stands between its beginning and its end.
type lifePhase int32

const (
	starting lifePhase = iota // it is made ready, and fetches nothing yet
	serving
	draining // it fetches nothing any more
	over     // and has nothing in hand, but for handlers that do not end
)

// phase is the phase of an instance. It changes under the hand's mutex, so that a fetch either begins before or not at all.
type phase struct{ now atomic.Int32 }

func (p *phase) enter(to lifePhase) (was lifePhase) { return lifePhase(p.now.Swap(int32(to))) }
func (p *phase) isStarting() bool                   { return lifePhase(p.now.Load()) == starting }
func (p *phase) isServing() bool                    { return lifePhase(p.now.Load()) == serving }
func (p *phase) isDraining() bool                   { return lifePhase(p.now.Load()) >= draining }
func (p *phase) isOver() bool                       { return lifePhase(p.now.Load()) == over }
