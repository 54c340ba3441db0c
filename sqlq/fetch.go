package sqlq

import (
	"math"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// maxTxBatch bounds a batch of an endpoint with HandleTx handlers: subtransactions beyond 64 spill to disk.
const maxTxBatch = 60

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

// notFetched has the next fetch begin where this one failed, or was not begun.
func (w *work) notFetched() {
	if w.isFromSource() {
		w.in.source.notFetched(&w.stretch)
	}
}

// takeFreed has a fetch from the hint look first for the messages of a batch that is settled in the same round trip without
// having been begun.
func (w *work) takeFreed(b *batch) {
	if !b.freed || w.n == 0 || w.leftmost || w.in != b.in || !w.isFromSource() {
		return
	}
	if w.in.source.takeFreed(&w.stretch, b.fetched, b.begun()) {
		b.freed = false
		w.leaveOut(w.above) // fetches by lease find what is under suspicion
	}
}

// wants says what a receiver could do for the instance now, and takes it: the caller does it.
func (in *instance) wants(now time.Time, spare bool) (w work, ok bool) {
	h := &in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	out := in.lookout.at(now)
	w = work{in: in, by: in.number(), wakes: out.wakes, finished: h.takeFinished()}
	if in.phase.isServing() && (!spare || in.run.dispatcher.maySpare(in)) {
		if w.custody = (heldCustody{}); in.endpoint.AtMostOnce {
			w.custody = takenCustody{}
		}
		var behind int64
		if in.handlers.anyOpen() {
			w.leave.Types, w.only, behind = in.handlers.openTypes(now, !out.forbidden && in.mayProbe(), out.awake)
		}
		switch s := in.suspicion.at(now); {
		case w.only != "":
			w.n, w.after, w.leave.Types = 1, max(in.source.lowest(), behind), nil
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
		w.n = h.pace.bySize(w.n)
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
		h.asked += w.n
		h.fetching++
	}
	return w, w.n > 0 || len(w.finished) > 0
}

// mayProbe says whether one message more may be fetched. The caller has the hand's mutex, as for room.
func (in *instance) mayProbe() bool {
	h := &in.hand
	return !in.refusals.isFull(h.states[kept]) && !in.outcomes.isBehind(time.Now()) && h.busyTx < h.concurrency &&
		(!in.endpoint.AtMostOnce || h.toHandle() < h.concurrency) && (in.endpoint.pulling == nil || in.endpoint.pulling.room(h.asked) > 0)
}

// room is the number of messages to fetch: what the slots finish within batchTime, less what is in hand.
func (in *instance) room(now time.Time, awake, byLease bool) int {
	h, dispatcher, slots := &in.hand, in.run.dispatcher, in.hand.concurrency
	switch {
	case !awake || in.refusals.isFull(h.states[kept]) || in.outcomes.isBehind(now):
		return 0
	case in.endpoint.pulling != nil:
		return min(in.endpoint.pulling.room(h.asked), in.client.config.BatchLimit)
	case in.hasTx && h.busyTx >= slots:
		return 0
	case in.hasTx && h.busyTx > 0 && h.pace.isSlowTx(now) && int(dispatcher.tx.Load()) >= dispatcher.receivers-dispatcher.reserve():
		return 0
	case in.solos.isOneNext():
		return 1
	case in.endpoint.AtMostOnce:
		return max(0, min(slots-h.toHandle(), in.client.config.BatchLimit))
	case byLease && in.hasTx:
		return 1
	case byLease:
		return max(0, slots-len(h.leases)+h.states[kept]) // whatever else waits: what is under suspicion comes first
	}
	mostTx := 0
	if in.hasTx {
		mostTx = in.endpoint.TxBatch
	}
	room := h.pace.room(slots, h.toHandle(), h.states[waiting], mostTx)
	if in.mostShare > 0 && h.states[waiting] == 0 && h.busy < slots && !in.handlers.singles.areComing() {
		room = max(room, h.pace.forBatches(in.mostShare)) // however long a call takes: with fewer messages it would hardly be shorter
	}
	return max(0, min(room, in.client.config.BatchLimit))
}

// fetched takes in the result of a fetch: which messages came, with their numbers, and whether it left some for their size. The
// source is asked before the lookout: see rung.
func (in *instance) fetched(w *work, ms []store.Message, numbers []span, rest bool) {
	got := len(ms)
	in.counts.fetched(got)
	if w.only != "" {
		in.lookout.came(got)
		in.handlers.byType.of(w.only).looked(got > 0)
		return
	}
	in.hand.sized(ms, in.client.config.MaxBody)
	if got > 0 {
		in.lookout.came(1)
	}
	if w.suspects {
		if got > 0 {
			in.source.moved()
		}
		in.suspicion.fetched(w.doubt, got >= w.n || rest)
		return
	}
	doubts, again := in.source.fetched(&w.stretch, numbers, got, rest)
	if again > 0 {
		in.group.life.after(again, in.askAgain)
	}
	in.solos.came(got)
	in.handlers.singles.came(got)
	if in.lookout.fetched(w.wakes, got >= w.n || rest || !w.leftmost || doubts) {
		in.bell.Interrupt()
	}
}

// endFetch ends what wants began. If it got messages they are in hand, and are now handled on the connection; else that counts no
// more as a slot of HandleTx handlers.
func (in *instance) endFetch(w work, got bool) {
	h := &in.hand
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fetching--
	switch {
	case w.suspects && w.only == "":
		in.suspicion.lookEnds()
	case w.only != "" && !got:
		in.handlers.byType.of(w.only).foundNone(time.Now())
	}
	h.asked -= w.n
	if w.leftmost {
		in.source.scanned(&w.stretch)
	}
	if in.hasTx && !got {
		in.leaveTx()
	}
	h.tellEmpty()
}

// endTx ends what endFetch left: the batch's HandleTx handlers are done.
func (in *instance) endTx() {
	in.hand.mu.Lock()
	defer in.hand.mu.Unlock()
	if in.hasTx {
		in.leaveTx()
	}
}

// beginTx counts a receiver that is going to run HandleTx handlers, leaveTx one that does not any more. The caller has the hand's
// mutex, and beginTx's the dispatcher's.
func (in *instance) beginTx(now time.Time) {
	h := &in.hand
	if h.busyTx++; h.busyTx == 1 {
		h.pace.endedTx = now
		in.run.dispatcher.txIdle.Add(-1)
	}
	if d := in.run.dispatcher; int(d.tx.Add(1)) == d.receivers {
		d.tookAll = now
	}
}

func (in *instance) leaveTx() {
	h := &in.hand
	if h.busyTx--; h.busyTx == 0 && !in.phase.isOver() {
		in.run.dispatcher.txIdle.Add(1)
	}
	in.run.dispatcher.tx.Add(-1)
	h.tellEmpty()
}

// enter goes over to a phase, and counts an instance whose HandleTx handlers may want a receiver, for as long as it serves or drains.
func (in *instance) enter(p lifePhase) {
	in.hand.mu.Lock()
	defer in.hand.mu.Unlock()
	was := in.phase.enter(p)
	if !in.hasTx || in.hand.busyTx > 0 {
		return
	}
	switch {
	case p == serving:
		in.run.dispatcher.txIdle.Add(1)
	case p == over && was != starting:
		in.run.dispatcher.txIdle.Add(-1)
	}
}
