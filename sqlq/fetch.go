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
	stretch  // where to fetch, and how many messages; n is 0 for no fetch
	custody  custody
	suspects bool  // fetch what is under suspicion, by lease
	by       int32 // the instance number that leases
	wakes    int

	above int64       // up to it messages are under suspicion
	upTo  int64       // by lease: the last seq to fetch; 0: to be learnt
	doubt int         // of the suspicion: its epoch
	leave store.Leave // what to leave out
	only  string      // a message type that is slowed down: fetch a probe
}

// isFromSource reports whether the source has said where the fetch looks. One by lease, or for a probe, goes from low by itself, and
// says nothing of what is left for others.
func (w *work) isFromSource() bool { return w.n > 0 && !w.suspects && w.only == "" }

// takeFreed has a fetch from the hint look first for the messages of a batch that is settled in the same round trip without
// having been begun.
func (w *work) takeFreed(b *batch) {
	if !b.freed || w.n == 0 || w.leftmost || w.in != b.in || !w.isFromSource() {
		return
	}
	if w.in.source.takeFreed(&w.stretch, b.fetched, w.in.begun(b)) {
		b.freed = false
		w.leaveOut(w.above) // fetches by lease find what is under suspicion
	}
}

// wants says what a receiver could do for the instance now, and takes it: the caller does it. The spare receiver does not fetch
// what may be for HandleTx handlers.
func (in *instance) wants(now time.Time, draining, spare bool) (w work, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := in.lookout.at(now)
	w = work{in: in, by: in.number(), wakes: out.wakes, finished: in.takeFinished()}
	if !draining && !(spare && in.hasTx) {
		if w.custody = (heldCustody{}); in.endpoint.AtMostOnce {
			w.custody = takenCustody{}
		}
		w.leave.Types, w.only = in.openTypes(now, !out.forbidden && in.mayProbe(), out.awake)
		switch s := in.suspicion.at(now); {
		case w.only != "":
			w.n, w.after, w.leave.Types = 1, in.source.lowest(), nil
			if w.suspects = s.holds && !in.endpoint.AtMostOnce; w.suspects {
				w.upTo = math.MaxInt64
			}
		case out.forbidden:
		case in.endpoint.AtMostOnce || !s.holds:
			w.n = in.room(now, out.awake, false)
		default:
			if s.mayLook {
				w.n = in.room(now, out.awake || s.rests, true)
			}
			if w.n > 0 {
				w.suspects, w.after, w.doubt = true, in.source.lowest(), s.epoch
				in.suspicion.look()
			}
			if s.known {
				w.above, w.upTo = s.upTo, s.upTo
			}
			if s.known && w.n == 0 {
				w.n = in.room(now, out.awake, false)
			}
		}
		if in.meanSize > 0 {
			w.n = min(w.n, max(1, fetchWanted/in.meanSize))
		}
	}
	if w.suspects {
		w.custody = leasedCustody{}
	}
	if w.isFromSource() {
		if stretch, ok := in.source.claim(now, w.n); ok {
			w.stretch = stretch
			w.leaveOut(w.above)
		} else {
			w.n = 0
		}
	}
	if w.n > 0 {
		w.began, w.leave.Seqs, w.leave.AllBut = now, in.refusals.asideSeqs(), w.only
		if in.hasTx {
			in.beginTx(now)
		}
		in.asked += w.n
		in.fetching++
	}
	return w, w.n > 0 || len(w.finished) > 0
}

// mayProbe says whether one message more may be fetched.
func (in *instance) mayProbe() bool {
	return !in.refusals.isFull(in.states[kept]) && in.busyTx < in.endpoint.Concurrency &&
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
func (in *instance) room(now time.Time, awake, byLease bool) int {
	inHand := in.inHands()
	switch {
	case !awake || in.refusals.isFull(in.states[kept]):
		return 0
	case in.hasTx && in.busyTx >= in.endpoint.Concurrency:
		return 0
	case in.hasTx && in.busyTx > 0 && in.isSlowTx(now) && int(in.run.schedule.tx.Load()) >= in.run.schedule.receivers-in.run.schedule.reserve():
		return 0
	case in.solos.isOneNext():
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
	got := len(ms)
	in.counts.fetched(got)
	in.mu.Lock()
	defer in.mu.Unlock()
	if w.only != "" {
		in.lookout.came(got)
		in.handlers[w.only].setRest(got > 0)
		return
	}
	if w.suspects {
		if got > 0 {
			in.lookout.came(1)
			in.source.moved()
		}
		in.suspicion.fetched(w.doubt, got >= w.n || rest)
		in.learnSize(ms)
		return
	}
	doubts, again := in.source.fetched(&w.stretch, numbers, got, rest)
	if again > 0 {
		in.run.life.after(again, in.askAgain)
	}
	in.learnSize(ms)
	if got > 0 {
		in.lookout.came(1)
		in.solos.came(got)
	}
	if in.lookout.fetched(w.wakes, got >= w.n || rest || !w.leftmost || doubts) {
		in.bell.Interrupt()
	}
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
	if w.isFromSource() {
		in.source.notFetched(&w.stretch)
	}
}

// endFetch ends what wants began. If it got messages they are in hand, and are now handled on the connection; else that counts no
// more as a slot of HandleTx handlers.
func (in *instance) endFetch(w work, got bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fetching--
	switch {
	case w.suspects && w.only == "":
		in.suspicion.lookEnds()
	case w.only != "" && !got:
		in.handlers[w.only].foundNone(time.Now())
	}
	in.asked -= w.n
	if w.leftmost {
		in.source.scanned(&w.stretch)
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
