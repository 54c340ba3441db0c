package sqlq

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/presence"
	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// instance is this process's part in an endpoint: its handlers, its slots, and what it has in hand.
//
// A slot is a goroutine that handles one message after another, from whichever batch has some; there are as many as the
// endpoint's Concurrency while there is work. What stands above mu is unchanged once the instance is made, or has a lock of its
// own; mu guards the rest, but for the channels. Slots, receivers, the attendant, the keeper and timers all write there: slots the
// means and what ends, receivers batches and where fetches start, the attendant (attend) awake and looking, the keeper id, low and
// suspicion, the drain drains and recalls. See runner for the order of locks.
type instance struct {
	client   *Client
	run      *runner
	endpoint Endpoint
	handlers *handlings
	opened   atomic.Int32 // breakers that are open
	hasTx    bool
	ctx      context.Context // of the handlers
	bell     *wakeup.Bell
	member   *presence.Member
	alone    sync.RWMutex // held for writing by a message that may have killed a process

	mu        ranked[ofInstance]
	batches   []*batch
	busy      int           // slots at work
	busyTx    int           // receivers that run HandleTx handlers
	fetching  int           // fetches under way: a drain waits for what they bring
	states    stateCounts   // of the deliveries in hand
	illegal   int           // steps of deliveries that were refused
	mean      time.Duration // of the time that a handler takes, plain
	meanTx    time.Duration // likewise, HandleTx
	endedTx   time.Time     // when one of these last ended, or their receivers last began
	ended     int           // plain handlers that have ended
	most      int           // to have in hand, learnt from a batch that was not done by the hold limit; 0: what the mean says
	meanSize  int           // of messages, in bytes; 0: none has come
	finished  []*delivery   // leased or removed ones to be settled: decided, or recalled
	leases    map[int64]*delivery
	removed   map[*delivery]struct{} // at most once: in hand, and nowhere else
	asked     int                    // messages that fetches under way may bring
	lostUnder map[ID]int             // how often the connection was lost under a HandleTx handler, by message
	troubles  map[ID]int             // how often the server was in trouble over the settle of a message
	refusals  refusals

	apartUntil map[string]time.Time // message types whose HandleTx handlers change the session
	goesAlone  map[ID]struct{}      // messages that are to have a transaction of their own
	txBatches  int                  // with HandleTx handlers

	start     start         // where fetches start
	awake     bool          // the queue may hold messages: fetch
	looking   bool          // attend waits for a fetch that comes back short
	wakes     int           // counts wake-ups, so that a fetch that began before one does not put the instance to sleep
	fetches   int           // that brought something since the instance was last woken
	one       int           // so many messages are to be received one at a time, after an error that named no culprit
	done      EndpointStats // its counts
	counted   uint64        // messages handled by countedAt, the last heartbeat
	countedAt time.Time
	paused    bool      // an operator paused the queue: nothing is fetched
	drains    bool      // the drain waits until nothing is in hand
	recalls   bool      // the drain waits for handlers no longer: what they have goes back
	notBefore time.Time // no fetch before: the queue is missing

	short     chan struct{} // filled when a fetch comes back short
	suspicion suspicion     // after a process of the endpoint has crashed
}

func newInstance(r *runner, e Endpoint) *instance {
	in := &instance{
		client: r.client, run: r, endpoint: e, ctx: r.handlerCtx,
		leases: map[int64]*delivery{}, removed: map[*delivery]struct{}{}, lostUnder: map[ID]int{}, troubles: map[ID]int{}, refusals: newRefusals(),
		apartUntil: map[string]time.Time{}, goesAlone: map[ID]struct{}{},
		short: make(chan struct{}, 1), awake: true,
	}
	in.bell, in.member = in.newBell(), in.newMember()
	in.handlers = newHandlings(&in.endpoint)
	for h := range e.allHandlers() {
		in.hasTx = in.hasTx || h.inTx
	}
	return in
}

// idle says whether slots stand idle although the queue may hold messages.
func (in *instance) idle() bool {
	return (in.awake || in.suspicion.rest && in.suspicion.holds(time.Now())) && !in.paused && in.states[waiting] == 0 && in.busy < in.endpoint.Concurrency && in.busyTx == 0
}

// cut takes back what has not begun of a batch and names what still runs, to be leased.
func (in *instance) cut(b *batch) (cut []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	taken := in.unstart(b)
	for _, d := range b.all {
		if d.state == running {
			in.move(d, leasing)
		}
		if d.state == leasing || d.state == leasingDecided { // perhaps since a settle that has failed
			cut = append(cut, d)
		}
	}
	switch {
	case len(taken) > 0 && in.busy > 0:
		// Handlers take longer than their mean says, which few long ones do not move: have no more in hand from now on than
		// was done meanwhile, less a quarter, and leave the rest to other processes.
		in.most = max(in.endpoint.Concurrency, (in.ended-b.before)*3/4)
	case in.most > in.endpoint.Concurrency*mostPerSlot:
		in.most = 0
	case in.most > 0 && time.Since(b.began) < in.client.config.HoldLimit/8:
		in.most *= 2 // it was the machine that stood still
	case in.most > 0:
		in.most += in.most/32 + 1
	}
	return cut
}

// unstart takes back what has not begun of a batch: held messages are free with the end of its transaction, others are given
// back.
func (in *instance) unstart(b *batch) (taken []*delivery) {
	return in.withdraw(b, func(*delivery) bool { return true })
}

// withdraw is unstart for those messages that fit.
func (in *instance) withdraw(b *batch, fits func(*delivery) bool) (taken []*delivery) {
	var left []*delivery
	for _, d := range b.waiting {
		if !fits(d) {
			left = append(left, d)
			continue
		}
		d.endProbe()
		taken = append(taken, d)
		d.custody.unbegun(in, d)
	}
	b.waiting = left
	b.freed = b.freed || len(taken) > 0
	return taken
}

// leased takes in the leases of deliveries that were cut; those that finished meanwhile are to be settled. A delivery
// without one was lost with its transaction; without leases all are.
func (in *instance) leased(cut []*delivery, leases map[int64]int64, by int32) {
	in.mu.Lock()
	for _, d := range cut {
		d.lease, d.leasedBy = leases[d.seq], by
		has, ended := d.lease != 0, d.state == leasingDecided
		if has {
			d.custody, in.leases[d.lease] = leasedCustody{}, d
		}
		switch {
		case has && ended:
			in.queueDecided(d)
		case has:
			if in.move(d, running); in.recalls {
				in.recall(d)
			}
		case ended && leases == nil:
			in.move(d, decided) // it is its batch's to settle after all
		case ended:
			in.move(d, freed)
		default:
			in.move(d, lost)
		}
	}
	in.mu.Unlock()
	in.client.config.observing.leased(in, leases)
	in.run.schedule.kick()
}

// stored forgets deliveries that were settled by themselves, or are others' by now.
func (in *instance) stored(ds []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range ds {
		if d.state == returning {
			in.move(d, lost)
		} else {
			in.move(d, settled)
		}
		d.custody.dismiss(in, d)
	}
}

// putOff has deliveries settled by themselves later.
func (in *instance) putOff(ds []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range ds {
		if d.state == returning {
			in.move(d, recalled)
			in.finished = append(in.finished, d)
		} else {
			in.queueDecided(d)
		}
	}
}

// queueDecided has a leased or removed delivery settled by the next receiver that is free.
func (in *instance) queueDecided(d *delivery) {
	if d.state != decided {
		in.move(d, decided)
	}
	in.finished = append(in.finished, d)
}

// takeFinished takes what is to be settled by itself; a settle or putOff follows.
func (in *instance) takeFinished() (ds []*delivery) {
	ds, in.finished = in.finished, nil
	for _, d := range ds {
		if d.state == recalled {
			in.move(d, returning)
		} else {
			in.move(d, settling)
		}
	}
	return ds
}

// hasRoom says whether a message that arrives now would be handled at once.
func (in *instance) hasRoom() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.opened.Load() == 0 && in.states[waiting] == 0 && in.busy+in.busyTx < in.endpoint.Concurrency
}

// unknown returns those of the leases in the instance's name that it knows nothing of: the commit that made them was
// lost on its way back.
func (in *instance) unknown(leases []store.Lease) (ids []int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, l := range leases {
		if l.Instance == in.number() && l.Queue == in.endpoint.Name && in.leases[l.ID] == nil {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// inHand counts what the instance has not settled yet. The caller has mu.
func (in *instance) inHand() int { return in.busy + in.busyTx + in.fetching + in.states.inHand() }

// tellEmpty tells the drain, once that has begun, when nothing is in hand any more. It follows whatever may be the end of the
// last; the caller has mu.
func (in *instance) tellEmpty() {
	if in.drains && in.inHand() == 0 {
		nudge(in.run.emptied)
	}
}

// missing has the instance wait before it fetches again, because its queue is not there.
func (in *instance) missing(err error) {
	in.mu.Lock()
	first := in.notBefore.IsZero()
	in.notBefore = time.Now().Add(time.Second)
	in.mu.Unlock()
	if first {
		in.client.log.Error("sqlq: cannot receive; trying every second", "endpoint", in.endpoint.Name, "err", err)
	}
	in.run.life.after(time.Second+time.Millisecond, in.run.schedule.kick)
}

// present notes that the queue is there.
func (in *instance) present() {
	in.mu.Lock()
	was := in.notBefore
	in.notBefore = time.Time{}
	in.mu.Unlock()
	if !was.IsZero() {
		in.run.listener.Refresh()
	}
}
