package sqlq

import (
	"math"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	maxTxBatch  = 60                    // of an endpoint with HandleTx handlers: subtransactions beyond 64 spill to disk
	mostPerSlot = 1000                  // messages in hand for each slot
	batchTime   = 40 * time.Millisecond // how long the handlers of a batch are meant to take
)

// work is what a receiver does next for an instance: settle leased messages, and fetch.
type work struct {
	in       *instance
	finished []*delivery
	n        int // messages to fetch
	custody  custody
	suspects bool  // fetch what is under suspicion, by lease
	by       int32 // the instance number that leases
	wakes    int

	after    int64       // the seq to fetch after
	above    int64       // likewise: up to it messages are under suspicion
	upTo     int64       // by lease: the last seq to fetch; 0: to be learnt
	doubt    int         // of the suspicion: its epoch
	leftmost bool        // nothing can be left of it: a short batch means that the queue is empty
	gaps     []gap       // to be looked for as well, all up to after
	closed   int64       // numbers up to it were closed before the fetch
	high     int64       // the highest seq seen before it
	epoch    int         // of start
	rewinds  int         // likewise
	leave    store.Leave // what to leave out
	only     string      // a message type that is slowed down: fetch a probe
	began    time.Time

	// The fetch also reads which number was given out last, and then who writes; given is 0 where the role may not.
	reads   bool
	given   int64
	writers []string
}

// wants says what a receiver could do for the instance now, and takes it: the caller does it. The spare receiver does not fetch
// what may be for HandleTx handlers.
func (in *instance) wants(now time.Time, draining, spare bool) (w work, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	w = work{in: in, by: in.number(), wakes: in.wakes, finished: in.takeFinished()}
	if !draining && !(spare && in.hasTx) {
		if w.custody = (heldCustody{}); in.endpoint.AtMostOnce {
			w.custody = takenCustody{}
		}
		w.leave.Types, w.only = in.openTypes(now, in.mayProbe(now))
		switch s := &in.suspicion; {
		case w.only != "":
			w.n, w.after, w.leave.Types = 1, in.start.low, nil
			if w.suspects = s.holds(now) && !in.endpoint.AtMostOnce; w.suspects {
				w.upTo = math.MaxInt64
			}
		case in.endpoint.AtMostOnce || !s.holds(now):
			w.n = in.room(now, false)
		default:
			if !s.looking && !now.Before(s.next) {
				w.n = in.room(now, true)
			}
			if w.n > 0 {
				w.suspects, w.after, w.doubt, s.looking = true, in.start.low, s.epoch, true
			}
			if s.known {
				w.above, w.upTo = s.upTo, s.upTo
			}
			if s.known && w.n == 0 {
				w.n = in.room(now, false)
			}
		}
		if in.meanSize > 0 {
			w.n = min(w.n, max(1, fetchWanted/in.meanSize))
		}
	}
	if w.suspects {
		w.custody = leasedCustody{}
	}
	if w.n > 0 && !w.suspects && w.only == "" {
		var ok bool
		if w.after, w.leftmost, ok = in.start.after(now, w.n); !ok {
			w.n = 0
		}
	}
	if w.n > 0 {
		w.began, w.leave.Seqs, w.leave.AllBut = now, in.refusals.asides(), w.only
		if w.fromStart() {
			in.start.lookForGaps(&w)
			w.leaveSuspects()
		}
		if in.hasTx {
			in.beginTx(now)
		}
		in.asked += w.n
		in.fetching++
	}
	return w, w.n > 0 || len(w.finished) > 0
}

// mayProbe says whether one message more may be fetched.
func (in *instance) mayProbe(now time.Time) bool {
	return !in.paused && !now.Before(in.notBefore) && !in.isFull() && in.busyTx < in.endpoint.Concurrency &&
		(!in.endpoint.AtMostOnce || in.inHands() < in.endpoint.Concurrency)
}

// inHands is the number of messages that handlers have, or are going to have.
func (in *instance) inHands() int {
	n := in.busy + in.states[waiting]
	if in.most > 0 || in.endpoint.AtMostOnce {
		n += in.asked
	}
	return n
}

// room is the number of messages to fetch: what the slots finish within batchTime, less what is in hand.
func (in *instance) room(now time.Time, byLease bool) int {
	inHand := in.inHands()
	switch {
	case !in.awake && !(byLease && in.suspicion.rest) || in.paused || now.Before(in.notBefore) || in.isFull():
		return 0
	case in.hasTx && in.busyTx >= in.endpoint.Concurrency:
		return 0
	case in.hasTx && in.busyTx > 0 && in.isSlowTx(now) && int(in.run.schedule.tx.Load()) >= in.run.schedule.receivers-in.run.schedule.reserve():
		return 0
	case in.one > 0:
		return 1
	}
	slots, mean := in.endpoint.Concurrency, in.mean
	if in.endpoint.AtMostOnce {
		return max(0, min(slots-inHand, in.client.config.BatchLimit))
	}
	if mean == 0 {
		mean = in.meanTx // until a plain one has run, if there are any: else nothing would ever be known of them
	}
	if byLease {
		if in.hasTx {
			return 1
		}
		return max(0, slots-len(in.leases)+in.states[kept]) // whatever else waits: what is under suspicion comes first
	}
	most := slots * perSlot(mean)
	if in.most > 0 {
		most = min(most, in.most)
	}
	room := most - inHand
	if in.hasTx {
		room = min(room, in.endpoint.TxBatch, perSlot(in.meanTx))
	}
	if in.states[waiting] > 0 && room < most/4 {
		return 0 // enough in hand; small fetches cost as much as large ones
	}
	return max(0, min(room, in.client.config.BatchLimit))
}

func perSlot(mean time.Duration) int {
	if mean <= 0 {
		return 1
	}
	return max(1, min(int(batchTime/mean), mostPerSlot))
}

// fetched takes in the result of a fetch: which messages came, with their numbers, and whether it left some for their size.
func (in *instance) fetched(w *work, ms []store.Message, numbers []span, rest bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	got := len(ms)
	in.done.Fetches++
	in.done.Received += uint64(got)
	if w.only != "" {
		in.fetches += got
		in.handlers.of(w.only).setRest(got > 0)
		return
	}
	if w.suspects {
		in.fetchedSuspects(*w, got, rest)
		in.learnSize(ms)
		return
	}
	high := int64(0)
	if got > 0 {
		high = numbers[len(numbers)-1].to
	}
	doubts, again := in.start.doubts(*w, got, high)
	if again > 0 {
		in.run.life.after(again, in.askAgain)
	}
	in.start.fetched(w, numbers, got, rest)
	in.learnSize(ms)
	if got > 0 {
		in.fetches++
		in.one = max(0, in.one-got)
		in.start.active = true
	}
	in.start.full = got >= w.n && got > 1
	if got >= w.n || rest || w.wakes != in.wakes || !w.leftmost || doubts {
		if in.awake = true; !in.looking {
			in.bell.Interrupt() // somebody must see the end of it
		}
		return
	}
	in.awake = false
	nudge(in.short)
}

// learnSize learns how large messages are, so that a fetch asks for no more than it may bring: upwards at once, downwards
// slowly. Bodies above Config.MaxBody never come.
func (in *instance) learnSize(ms []store.Message) {
	if len(ms) == 0 {
		return
	}
	total := 0
	for i := range ms {
		if m := &ms[i]; m.Size <= in.client.config.MaxBody {
			total += m.Size + len(m.Headers)
		}
	}
	in.meanSize = max(total/len(ms), in.meanSize-in.meanSize/8, 1)
}

// notFetched has the next fetch begin where one failed, or was not begun.
func (in *instance) notFetched(w work) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if w.fromStart() {
		in.start.notFetched(&w)
	}
}

// endFetch ends what wants began. If it got messages they are in hand, and are now handled on the connection; else that counts no
// more as a slot of HandleTx handlers.
func (in *instance) endFetch(w work, got bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fetching--
	switch {
	case w.only == "":
		in.suspicion.looking = in.suspicion.looking && !w.suspects
	case !got:
		in.handlers.of(w.only).foundNone(time.Now())
	}
	in.asked -= w.n
	if w.leftmost {
		now := time.Now()
		in.start.scanned(now, now.Sub(w.began))
	}
	if in.hasTx && !got {
		in.leaveTx()
	}
	in.tellEmpty()
}

// endTx ends what endFetch left: the batch's HandleTx handlers are done.
func (in *instance) endTx() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.hasTx {
		in.leaveTx()
	}
}

// beginTx counts a receiver that is going to run HandleTx handlers, leaveTx one that does not any more.
func (in *instance) beginTx(now time.Time) {
	if in.busyTx++; in.busyTx == 1 {
		in.endedTx = now
		in.run.schedule.txIdle.Add(-1)
	}
	in.run.schedule.tx.Add(1)
}

func (in *instance) leaveTx() {
	if in.busyTx--; in.busyTx == 0 {
		in.run.schedule.txIdle.Add(1)
	}
	in.run.schedule.tx.Add(-1)
	in.tellEmpty()
}

// isSlowTx reports whether HandleTx handlers of the instance may keep their connections for long: they usually do, nothing is
// known of them yet, or none has ended for a while.
func (in *instance) isSlowTx(now time.Time) bool {
	return in.meanTx == 0 || in.meanTx > batchTime/2 || now.Sub(in.endedTx) > batchTime
}
