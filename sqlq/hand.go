package sqlq

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// hand is what an instance has in hand: its deliveries by state, the batches that they came with, what leads to their ends, and
// who is at work on them. It is the one place where a delivery changes its state (move), so what is counted of them is decided
// together, under mu.
//
// Slots write what ends and how long it took (slot.go), receivers batches and fetches (batch.go, fetch.go), receivers and timers
// what is to be settled by itself, and the drain drains and recalls (hand_ends.go). Functions whose comment says so are called
// with mu; so are those of a custody that take a hand. Behind mu only the other parts of the instance may be locked.
type hand struct {
	endpoint *Endpoint
	log      *slog.Logger
	turn     <-chan struct{} // filled while a message that may have killed a process is in hand
	alone    *sync.RWMutex   // of apart: such a message has it
	emptied  chan<- struct{} // filled when the instance drains and has nothing in hand any more
	counts   *counts
	outcomes *outcomes
	moved    func(d *delivery, from, to deliveryState) // told by move, with mu; nil: nobody wants to know

	mu          ranked[ofHand]
	concurrency int // messages that are handled at a time

	batches  []*batch // with messages that wait for a slot
	states   stateCounts
	illegal  int         // steps of deliveries that were refused
	finished []*delivery // leased or removed ones to be settled: decided, or recalled
	leases   map[int64]*delivery
	removed  map[*delivery]struct{} // at most once: in hand, and nowhere else
	busy     int                    // slots at work
	busyTx   int                    // receivers that run HandleTx handlers
	fetching int                    // fetches under way: a drain waits for what they bring
	asked    int                    // messages that these may bring
	pace     pace
	drains   bool // the drain waits until nothing is in hand
	recalls  bool // the drain waits for handlers no longer: what they have goes back
}

// panicOnIllegalStep has tests fail where a running process would log.
var panicOnIllegalStep = false

// move brings a delivery to another state, and everything that is counted by state with it. A step that is not in the table is
// refused: it is a fault of this package, which the log names once. The caller has mu.
func (h *hand) move(d *delivery, to deliveryState) bool {
	from := d.state
	if err := from.next(to); err != nil {
		h.refuseStep(d, err)
		return false
	}
	d.state = to
	if from != fetched {
		h.states[from]--
	}
	if !isOver.has(to) {
		h.states[to]++
	}
	if !d.inTx && runs.has(from) && !runs.has(to) {
		if d.batch.open--; d.batch.open == 0 {
			close(d.batch.done)
		}
	}
	if d.apart && endsTurn.has(to) {
		d.apart = false
		<-h.turn // the next that may have killed a process may run
	}
	if d.crashes && isOver.has(to) && d.alone.Swap(false) {
		h.alone.Unlock()
	}
	if isOver.has(to) || to == lost {
		h.tellEmpty()
	}
	if h.moved != nil {
		h.moved(d, from, to)
	}
	return true
}

func (h *hand) refuseStep(d *delivery, err error) {
	if panicOnIllegalStep {
		panic(fmt.Sprintf("message %v of endpoint %s: %v", d.stored.id, h.endpoint.Name, err))
	}
	if h.illegal++; h.illegal == 1 {
		h.log.Error("sqlq: a message was about to take a step that it must not; this is a fault of the library, please report it", "endpoint", h.endpoint.Name,
			"type", loggedText(d.stored.messageType), "message", d.stored.id, "err", err)
	}
}

// step is move for who does not have mu.
func (h *hand) step(d *delivery, to deliveryState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.move(d, to)
}

// inHand counts what has not been settled yet. The caller has mu.
func (h *hand) inHand() int { return h.busy + h.busyTx + h.fetching + h.states.inHand() }

// count is inHand for who does not have mu; of that, toStore is what receivers have to do yet, which is all but the handlers that do
// not heed the drain.
func (h *hand) count() (inHand, toStore int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	inHand = h.inHand()
	return inHand, inHand - h.busy - h.states[running] - h.states[lost]
}

// tellEmpty tells the drain, once that has begun, when less is in hand: nothing any more or, when it does not wait for handlers any
// longer, whatever it is. It follows whatever may be the end of the last; the caller has mu.
func (h *hand) tellEmpty() {
	if h.drains && (h.recalls || h.inHand() == 0) {
		nudge(h.emptied)
	}
}

// drain has the end of what is in hand told.
func (h *hand) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drains = true
}

// toHandle is the number of messages that handlers have, or are going to have. The caller has mu.
func (h *hand) toHandle() int {
	n := h.busy + h.states[waiting]
	if h.pace.most > 0 || h.endpoint.AtMostOnce {
		n += h.asked
	}
	return n
}

// isIdle reports whether slots stand idle. The caller has mu.
func (h *hand) isIdle() bool {
	return h.states[waiting] == 0 && h.busy < h.concurrency && h.busyTx == 0
}

// hasRoom reports whether a message that arrives now would be handled at once.
func (h *hand) hasRoom() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[waiting] == 0 && h.busy+h.busyTx < h.concurrency
}

// isFetching reports whether a fetch is under way.
func (h *hand) isFetching() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fetching > 0
}

// working counts the handlers under way, and the messages that wait for one; inTx says that there are HandleTx handlers.
func (h *hand) working(inTx bool) (running, wait int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if running = h.busy; inTx {
		running += h.busyTx - h.fetching // the others' connections are still fetching
	}
	return running, h.states[waiting]
}

// handled returns the deliveries that plain handlers have, of those that are leased or removed, and of some batches that are held.
func (h *hand) handled(held []*batch) (ds []*delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	add := func(d *delivery) {
		if d.handler != nil && !d.handler.inTx && isRunning.has(d.state) {
			ds = append(ds, d)
		}
	}
	for _, d := range h.leases {
		add(d)
	}
	for d := range h.removed {
		add(d)
	}
	for _, b := range held {
		for _, d := range b.all {
			if !d.custody.isSingle() {
				add(d)
			}
		}
	}
	return ds
}

// unknown returns those of the leases in an instance's name that it knows nothing of: the commit that made them was lost on its
// way back.
func (h *hand) unknown(number int32, leases []store.Lease) (ids []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range leases {
		if l.Instance == number && l.Queue == h.endpoint.Name && h.leases[l.ID] == nil {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// goApart notes that a message that may have killed a process has its turn, and reports whether it still runs: the drain may have
// given it back, and nobody would end the turn.
func (h *hand) goApart(d *delivery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.apart = d.state == running
	return d.apart
}

// nameLost names in the log the messages that are lost because Run ends while they are in hand: their handlers go on, or the
// database could not be reached.
func (h *hand) nameLost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d := range h.removed {
		h.log.Error("sqlq: a message that is handled at most once is lost with the end of its process", "endpoint", h.endpoint.Name,
			"type", d.stored.messageType, "message", d.stored.id, "handled", !runs.has(d.state))
	}
}

// tookTx learns how long a HandleTx handler took; slots do it for the others.
func (h *hand) tookTx(took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pace.tookTx(took)
}

// sized learns how large fetched messages are; those above maxBody never come.
func (h *hand) sized(ms []store.Message, maxBody int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pace.sized(ms, maxBody)
}
