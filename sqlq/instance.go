package sqlq

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// instance is this process's part in an endpoint: its handlers, its slots, and what it has in hand.
//
// A slot is a goroutine that handles one message after another, from whichever batch has some; there are as many as the
// endpoint's Concurrency while there is work. mu is taken after the scheduler's mutex, never before it.
type instance struct {
	client   *Client
	run      *runner
	endpoint Endpoint
	handlers map[string]*handling
	opened   atomic.Int32 // breakers that are open
	hasTx    bool
	ctx      context.Context // of the handlers
	alone    sync.RWMutex    // held for writing by a message that may have killed a process

	mu        sync.Mutex
	id        int32 // in the instance table
	batches   []*batch
	busy      int           // slots at work
	busyTx    int           // receivers that run HandleTx handlers
	fetching  int           // fetches under way: a drain waits for what they bring
	waiting   int           // messages in hand that have not begun
	mean      time.Duration // of the time that a handler takes, plain
	meanTx    time.Duration // likewise, HandleTx
	endedTx   time.Time     // when one of these last ended, or their receivers last began
	ended     int           // plain handlers that have ended
	most      int           // to have in hand, learnt from a batch that was not done by the hold limit; 0: what the mean says
	meanSize  int           // of messages, in bytes; 0: none has come
	finished  []*delivery   // leased or removed ones to be settled
	settling  int           // of these, those whose settle is under way
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
	notBefore time.Time // no fetch before: the queue is missing

	short     chan struct{} // filled when a fetch comes back short
	woken     chan struct{} // filled when somebody wakes the instance
	suspicion suspicion     // after a process of the endpoint has crashed
}

func newInstance(r *runner, e Endpoint) *instance {
	in := &instance{
		client: r.client, run: r, endpoint: e, handlers: map[string]*handling{}, ctx: r.handlerCtx,
		leases: map[int64]*delivery{}, removed: map[*delivery]struct{}{}, lostUnder: map[ID]int{}, troubles: map[ID]int{}, refusals: newRefusals(),
		apartUntil: map[string]time.Time{}, goesAlone: map[ID]struct{}{},
		short: make(chan struct{}, 1), woken: make(chan struct{}, 1), awake: true,
	}
	for i := range e.Handlers {
		h := &e.Handlers[i]
		in.handlers[h.messageType] = &handling{Handler: h, breaker: breaker{limit: max(10, e.Concurrency)}}
		in.hasTx = in.hasTx || h.inTx
	}
	return in
}

// idle says whether slots stand idle although the queue may hold messages.
func (in *instance) idle() bool {
	return (in.awake || in.suspicion.rest && in.suspicion.holds(time.Now())) && !in.paused && in.waiting == 0 && in.busy < in.endpoint.Concurrency && in.busyTx == 0
}

// add takes a batch in hand and sets slots to work on it.
func (in *instance) add(b *batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if b.byLease {
		for _, d := range b.all {
			in.leases[d.lease] = d
		}
	}
	if b.removed {
		for _, d := range b.all {
			in.removed[d] = struct{}{}
		}
	}
	if b.byLease || b.removed {
		b.all = nil // each is settled by itself
	}
	if len(b.waiting) == 0 {
		return
	}
	in.batches = append(in.batches, b)
	b.before = in.ended
	in.waiting += len(b.waiting)
	if in.opened.Load() > 0 {
		in.withdrawSlowed(b)
	}
	for range min(len(b.waiting), in.endpoint.Concurrency-in.busy) {
		in.busy++
		go in.slot()
	}
}

// cut takes back what has not begun of a batch and names what still runs, to be leased.
func (in *instance) cut(b *batch) (running []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	taken := in.unstart(b)
	for _, d := range b.all {
		if d.started && !d.finished {
			d.leasing = true
			running = append(running, d)
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
	return running
}

// unstart takes back what has not begun of a batch.
func (in *instance) unstart(b *batch) (taken []*delivery) {
	return in.withdraw(b, func(*delivery) bool { return true })
}

// withdraw takes back those messages of a batch that have not begun and fit.
func (in *instance) withdraw(b *batch, fits func(*delivery) bool) (taken []*delivery) {
	var left []*delivery
	for _, d := range b.waiting {
		if fits(d) {
			d.endProbe()
			taken = append(taken, d)
		} else {
			left = append(left, d)
		}
	}
	in.waiting -= len(taken)
	b.open -= len(taken)
	if len(taken) > 0 && b.open == 0 {
		close(b.done)
	}
	b.waiting = left
	b.freed = b.freed || len(taken) > 0
	return taken
}

// leased takes in the leases of deliveries that were cut; those that finished meanwhile are to be settled. A delivery
// without one was lost with its transaction.
func (in *instance) leased(running []*delivery, leases map[int64]int64, by int32) {
	in.mu.Lock()
	for _, d := range running {
		d.leasing = false
		if d.lease, d.leasedBy = leases[d.seq], by; d.lease == 0 {
			d.lost = true
			continue
		}
		in.leases[d.lease] = d
		if d.finished {
			in.finished = append(in.finished, d)
		}
	}
	in.mu.Unlock()
	in.client.config.observing.leased(in, leases)
	in.run.schedule.kick()
}

// settledLeases forgets leased or removed deliveries that were settled, unless they are kept, or takes those back whose settle
// failed.
func (in *instance) settledLeases(ds []*delivery, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.settling -= len(ds)
	if !ok {
		in.finished = append(in.finished, ds...)
		return
	}
	for _, d := range ds {
		in.settled(d)
		if _, kept := in.refusals.kept[d]; !kept {
			delete(in.leases, d.lease)
			delete(in.removed, d)
		}
	}
}

// hasRoom says whether a message that arrives now would be handled at once.
func (in *instance) hasRoom() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.opened.Load() == 0 && in.waiting == 0 && in.busy+in.busyTx < in.endpoint.Concurrency
}

// unknown returns those of the leases in the instance's name that it knows nothing of: the commit that made them was
// lost on its way back.
func (in *instance) unknown(leases []store.Lease) (ids []int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, l := range leases {
		if l.Instance == in.id && l.Queue == in.endpoint.Name && in.leases[l.ID] == nil {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// inHand counts what the instance has not settled yet.
func (in *instance) inHand() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.busy + in.waiting + in.busyTx + in.fetching + len(in.leases) + len(in.finished) + in.settling
}

// from says where the row of a delivery is.
func (in *instance) from(d *delivery) store.From {
	return store.From{Queue: in.endpoint.Name, Instance: d.leasedBy}
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
	time.AfterFunc(time.Second+time.Millisecond, in.run.schedule.kick)
}

// present notes that the queue is there.
func (in *instance) present() {
	in.mu.Lock()
	was := in.notBefore
	in.notBefore = time.Time{}
	in.mu.Unlock()
	if !was.IsZero() {
		in.run.listener.refresh()
	}
}

// number is the instance's number in the instance table.
func (in *instance) number() int32 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.id
}
