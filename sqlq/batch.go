package sqlq

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// delivery is one message in hand of one instance. There may be hundreds of thousands a second, and what they cost is their size:
// keep it small. The receiver that fetched it makes it. Then it belongs to whoever brings it on:
//
//   - state, custody, lease, leasedBy and apart are guarded by the hand's mutex. A lease comes while the handler runs, so
//     handlers' goroutines do not read these without it.
//   - attempts, exited, err, outcome, out, waited, claim and probe are written by the goroutine that decides on the message: the
//     slot, or the receiver on whose connection it runs; then, once the state is settling, by the receiver that settles it.
//     The drain may take a running message away; it does not touch these, but sets back, which nobody changes any more.
type delivery struct {
	Incoming // its out is what is sent with the settle
	batch    *batch
	handler  *handling // nil: unknown type
	seq      int64
	row      pgtype.TID     // of the seq, while it is held
	custody  custody        // how the process has it; changes when a held one is leased
	lease    int64          // while it is leased
	removed  *store.Message // what it was: at most once, the database has it no more
	left     time.Duration  // of its time to live, when its batch came; 0: it does not expire
	broken   error          // why it cannot be handled at all
	err      error
	outcome  outcome
	waited   *string      // of one that waits: its headers from then on; nil: they stay
	leasedBy int32        // the instance number that the lease is in the name of
	attempts atomic.Int32 // made, the running one included
	before   int32        // attempts that it came with
	slow     atomic.Bool  // the log has named it, because its handler runs for long
	claim    store.Claim  // of its id, where the endpoint deduplicates
	state    deliveryState
	probe    bool        // it is tried although others of its type have failed
	crashes  bool        // a process died with it in hand: it runs alone, by lease
	apart    bool        // and does so: no other such message of the process may run until it is settled
	alone    atomic.Bool // nor, until then, any other of the instance
	inTx     bool        // its handler wants the receive transaction, and the message a decision on that connection
	back     bool        // recalled: it goes back whatever its handler does yet; unchanged once it is queued to be settled
	exited   bool        // the handler was called and has not returned
}

// hasExpired reports whether the message's time to live is over.
func (d *delivery) hasExpired() bool { return d.left != 0 && time.Since(d.batch.began) >= d.left }

// made is how many attempts were made, the running one included.
func (d *delivery) made() int { return int(d.attempts.Load()) }

// batch is what one fetch brought.
type batch struct {
	in      *instance
	began   time.Time
	custody custody     // at the fetch
	all     []*delivery // until it is settled
	fetched []span      // the numbers of all that the fetch brought, of those too that were left to the next
	waiting []*delivery // plain ones that have not begun, in order
	inTx    []*delivery // ones whose handlers want the receive transaction, in order
	open    int         // plain ones whose handlers have not ended; move counts them down
	done    chan struct{}
	before  int  // handlers of the instance that had ended when it came
	freed   bool // rows of it are free again after the commit, though nobody handled them
	ended   bool // a HandleTx handler ended the transaction: nothing is held any more
	undone  bool // messages of a chunk are free with the commit: they are to be handled by themselves; the hand's mutex guards it

	tx *receiveTx // what the HandleTx handlers were given; nil: there were none
}

// newBatch turns messages that were fetched as w says into deliveries; those that are too large have not been read. What does not
// pass a gate is left out, and free with the batch's transaction.
func newBatch(in *instance, ms []store.Message, w *work, gates []gate, tooLarge map[int64]error) *batch {
	var owns idTexts
	b := &batch{in: in, began: time.Now(), custody: w.custody, all: newDeliveries(ms), done: make(chan struct{})}
	for i := range ms {
		d, m := b.all[i], &ms[i]
		d.batch, d.custody, d.seq, d.row = b, b.custody, m.Seq, m.Row
		d.attempts.Store(int32(m.Attempt))
		d.before = int32(m.Attempt)
		d.client, d.codecs, d.ctx, d.Endpoint = in.client, in.client.config.codecs, in.handlers.ctx, in.endpoint.Name
		if d.broken = d.receive(m, owns.next(ms[i:])); tooLarge[m.Seq] != nil {
			d.broken = tooLarge[m.Seq]
		}
		if m.Left != nil {
			d.left = max(*m.Left, 1)
		}
		b.custody.receive(d, m, w)
		d.handler = in.handlers.byType.of(m.Type)
		d.probe = w.only != ""
		passes := true
		for _, g := range gates {
			passes = passes && g.pass(d)
		}
		d.inTx = d.handler != nil && d.handler.inTx && d.broken == nil && d.claim <= store.Claimed
		if !passes {
			b.freed = true
			d.endProbe()
			continue
		}
		if d.inTx {
			b.inTx = append(b.inTx, d)
		} else {
			b.waiting = append(b.waiting, d)
		}
	}
	b.open = len(b.waiting)
	if b.open == 0 {
		close(b.done)
	}
	return b
}

// add takes a batch in hand and sets slots to work on it.
func (in *instance) add(b *batch) {
	h := &in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.custody.enter(h, b); b.custody.isSingle() {
		b.all = nil // each is settled by itself
	}
	for _, d := range b.inTx {
		h.move(d, lined)
	}
	if len(b.waiting) == 0 {
		return
	}
	for _, d := range b.waiting {
		h.move(d, waiting)
	}
	h.batches = append(h.batches, b)
	b.before = h.pace.ended
	if h.drains { // its fetch began before the drain
		b.withdraw(h, func(*delivery) bool { return true })
	}
	if b.custody.isSingle() && in.handlers.anyOpen() {
		b.withdraw(h, isSlowed)
	}
	in.slots.start(len(b.waiting))
}

// cut takes back what has not begun of a batch and names what still runs, to be leased.
func (b *batch) cut() (cut []*delivery) {
	h := &b.in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := b.withdraw(h, func(*delivery) bool { return true })
	b.freed = b.freed || b.undone
	for _, d := range b.all {
		if d.state == running {
			h.move(d, leasing)
		}
		if d.state == leasing || d.state == leasingDecided { // perhaps since a settle that has failed
			cut = append(cut, d)
		}
	}
	if b.in.mostShare > 0 {
		h.pace.shared(len(b.all), b.countBegun())
	}
	h.pace.cut(taken > 0 && h.busy > 0, time.Since(b.began) < b.in.client.config.HoldLimit/8, b.before, h.concurrency)
	return cut
}

// countBegun counts the messages that handlers have begun. The caller has the hand's mutex.
func (b *batch) countBegun() (n int) {
	for _, d := range b.all {
		if !isUnbegun.has(d.state) {
			n++
		}
	}
	return n
}

// withdraw takes back those messages that fit of what has not begun of a batch: held ones are free with the end of its
// transaction, others are given back. The caller has the hand's mutex.
func (b *batch) withdraw(h *hand, fits func(*delivery) bool) (taken int) {
	var left []*delivery
	for _, d := range b.waiting {
		if !fits(d) {
			left = append(left, d)
			continue
		}
		d.endProbe()
		taken++
		d.custody.unbegun(h, d)
	}
	b.waiting = left
	b.freed = b.freed || taken > 0
	return taken
}

// move brings all messages of a chunk to another state.
func (c *chunk) move(h *hand, to deliveryState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range c.all {
		h.move(d, to)
	}
}

// settle leaves what is decided of a chunk to its batch, and frees the rest. It reports whether there was any.
func (c *chunk) settle(h *hand) (frees bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range c.all {
		if d.isUndone() {
			h.move(d, freed)
			frees = true
		} else {
			h.move(d, decided)
		}
	}
	return frees
}

// leased takes in the leases of deliveries that were cut; those that finished meanwhile are to be settled. A delivery
// without one was lost with its transaction; without leases all are.
func (h *hand) leased(cut []*delivery, leases map[int64]int64, by int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range cut {
		d.lease, d.leasedBy = leases[d.seq], by
		has, ended := d.lease != 0, d.state == leasingDecided
		if has {
			d.custody, h.leases[d.lease] = leasedCustody{}, d
		}
		switch {
		case has && ended:
			h.queueDecided(d)
		case has:
			if h.move(d, running); h.recalls {
				h.recall(d)
			}
		case ended && leases == nil:
			h.move(d, decided) // it is its batch's to settle after all
		case ended:
			h.move(d, freed)
		default:
			h.move(d, lost)
		}
	}
}

// finished returns the deliveries of a batch that have their verdict and are still the batch's to settle.
func (b *batch) finished() (finished []*delivery) {
	h := &b.in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range b.all {
		if d.state == decided && d.outcome.verdict != giveBack {
			finished = append(finished, d)
		}
	}
	return finished
}

// ends shows how each delivery of a batch that was cut ends. Nothing is locked meanwhile: what is not running any more only its
// receiver brings on.
func (b *batch) ends(show func(d *delivery, decided bool, how howEnds)) {
	h := &b.in.hand
	h.mu.Lock()
	known := make([]deliveryState, len(b.all))
	for i, d := range b.all {
		known[i] = d.state
	}
	h.mu.Unlock()
	for i, d := range b.all {
		switch known[i] {
		case decided:
			show(d, true, handled)
		case leasing, leasingDecided:
			show(d, false, goesOn)
		default:
			show(d, false, notHandled)
		}
	}
}

// begun returns the numbers of those messages of a batch that were begun.
func (b *batch) begun() (seqs []int64) {
	h := &b.in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range b.all {
		if !isUnbegun.has(d.state) {
			seqs = append(seqs, d.seq)
		}
	}
	return seqs
}

// idTexts makes the texts of message ids, a few in one allocation: more would keep each other in memory.
type idTexts string

// next returns the text of the id of the first of the messages that are left.
func (t *idTexts) next(left []store.Message) string {
	if *t == "" {
		var b strings.Builder
		b.Grow(36 * min(len(left), 16))
		for i := range min(len(left), 16) {
			text := ID(left[i].ID).text()
			b.Write(text[:])
		}
		*t = idTexts(b.String())
	}
	own := (*t)[:36]
	*t = (*t)[36:]
	return string(own)
}

// maxTogether bounds the bodies of messages whose deliveries are allocated together, in bytes: one that is handled for
// long keeps the others in memory.
const maxTogether = 256 << 10

func newDeliveries(ms []store.Message) []*delivery {
	all, size := make([]*delivery, len(ms)), 0
	for i := range ms {
		size += len(ms[i].Body)
	}
	if size > maxTogether {
		for i := range all {
			all[i] = new(delivery)
		}
		return all
	}
	together := make([]delivery, len(ms))
	for i := range all {
		all[i] = &together[i]
	}
	return all
}

// release lets go of the deliveries of a batch that is settled, or given up: what has a verdict is settled or freed with it. Those that are leased refer to the batch and
// would keep the others in memory.
func (b *batch) release(decidedOnes deliveryState) {
	h := &b.in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range b.all {
		switch {
		case d.custody.isSingle() || isOver.has(d.state) || d.state == lost:
		case d.state == decided && d.outcome.verdict != giveBack:
			h.move(d, decidedOnes)
		default:
			h.move(d, freed)
		}
	}
	b.all, b.inTx = nil, nil
}
