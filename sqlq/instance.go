package sqlq

import (
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/presence"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// instance is this process's part in an endpoint. It puts its parts together, each of which knows one thing and has a mutex of its
// own; what goes through several of them is a method of the instance. Its own fields are unchanged once it is made.
//
// Slots, receivers, the attendant (wakeup.Bell.Attend), the keeper, timers and the drain call in; the comment of each part says who
// writes what there. See runner for the order of locks.
type instance struct {
	client   *Client
	run      *runner
	group    *group
	endpoint Endpoint
	hasTx    bool // some of the handlers want the receive transaction
	// mostShare is how many messages a call of its batch handlers may get at most; 0: there are none.
	mostShare int
	bell      *wakeup.Bell
	member    *presence.Member

	lookout   lookout   // whether to fetch
	source    source    // where fetches look
	suspicion suspicion // after a process of the endpoint has crashed
	hand      hand      // what is in hand
	slots     slots     // who handles it
	handlers  handlers  // by what
	solos     solos     // which HandleTx messages have a transaction of their own
	refusals  refusals  // what could not be settled
	counts    counts    // what was done
	outcomes  *outcomes // whom it is told; nil: nobody
	phase     phase     // whether it fetches
}

func newInstance(g *group, e Endpoint) *instance {
	r := g.run
	in := &instance{client: r.client, run: r, group: g, endpoint: e, lookout: newLookout(), refusals: newRefusals(), solos: newSolos()}
	in.suspicion.life, in.suspicion.ranOut = &g.life, in.lookFromLow
	in.outcomes = newOutcomes(in)
	in.equipHand()
	in.slots = slots{hand: &in.hand, handlers: &in.handlers, life: &g.life, isIdle: in.mayFetch, kick: r.dispatcher.kick}
	in.equipHandlers()
	in.bell, in.member = in.newBell(), in.newMember()
	return in
}

func (in *instance) equipHand() {
	h := &in.hand
	h.endpoint, h.log, h.turn, h.emptied, h.counts = &in.endpoint, in.client.log, in.run.suspect, in.group.emptied, &in.counts
	h.concurrency, h.outcomes = in.endpoint.Concurrency, in.outcomes
	if p := in.endpoint.pulling; p != nil {
		h.moved = p.moved
	}
	h.leases, h.removed = map[int64]*delivery{}, map[*delivery]struct{}{}
}

// equipHandlers makes the handlers of the endpoint ready.
func (in *instance) equipHandlers() {
	h := &in.handlers
	h.client, h.endpoint, h.ctx, h.life, h.hand, h.refusals = in.client, &in.endpoint, in.group.handlerCtx, &in.group.life, &in.hand, &in.refusals
	h.slowed, h.recovered, h.probe, h.byType = in.slowed, in.recovered, in.probe, newHandlings(&in.endpoint)
	h.apart.client, h.apart.ctx, h.apart.hand, h.apart.life = in.client, h.ctx, &in.hand, h.life
	h.apart.turnOf, h.apart.refused = in.run.suspect, in.refusedAgain
	in.hand.alone = &h.apart.alone
	for handler := range in.endpoint.allHandlers() {
		in.hasTx = in.hasTx || handler.inTx
		if b := handler.batching; b != nil {
			in.mostShare = max(in.mostShare, b.Most)
			in.slots.chunks = in.slots.chunks || !handler.inTx
		}
	}
}

// mayFetch reports whether the queue may hold messages, and nothing forbids to fetch them.
func (in *instance) mayFetch() bool {
	now := time.Now()
	out := in.lookout.at(now)
	return !out.forbidden && (out.awake || in.suspicion.at(now).rests) && !in.endpoint.pulling.wantsNone()
}

// hasRoom reports whether a message that arrives now would be handled at once.
func (in *instance) hasRoom() bool {
	return !in.handlers.anyOpen() && in.hand.hasRoom() && !in.endpoint.pulling.wantsNone()
}
