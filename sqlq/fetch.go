package sqlq

import "time"

const (
	maxTxBatch = 60                    // of an endpoint with HandleTx handlers: subtransactions beyond 64 spill to disk
	batchTime  = 40 * time.Millisecond // how long the handlers of a batch are meant to take
)

// work is what a receiver does next for an instance: settle leased messages, and fetch.
type work struct {
	in       *instance
	finished []*delivery
	n        int   // messages to fetch
	byLease  bool  // fetch by lease, because a process of the endpoint died
	removes  bool  // fetch at most once: commit the removal
	by       int32 // the instance number that leases
	wakes    int

	after    int64 // the seq to fetch after
	leftmost bool  // nothing can be left of it: a short batch means that the queue is empty
	began    time.Time
}

// wants says what a receiver could do for the instance now, and takes it: the caller does it.
func (in *instance) wants(now time.Time, draining bool) (w work, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	w = work{in: in, by: in.id, wakes: in.wakes, finished: in.finished}
	in.settling += len(w.finished)
	in.finished = nil
	if !draining {
		w.removes = in.endpoint.AtMostOnce
		w.byLease = now.Before(in.suspectUntil) && !w.removes
		w.n = in.room(now, w.byLease)
	}
	if w.n > 0 {
		var ok bool
		if w.after, w.leftmost, ok = in.start.after(now, w.n); !ok {
			w.n = 0
		}
	}
	if w.n > 0 {
		w.began = now
		if in.hasTx {
			in.busyTx++
		}
		if w.removes {
			in.asked += w.n
		}
		in.fetching++
	}
	return w, w.n > 0 || len(w.finished) > 0
}

// room is the number of messages to fetch: what the slots finish within batchTime, less what is in hand.
func (in *instance) room(now time.Time, byLease bool) int {
	inHand := in.busy + in.waiting + in.asked
	switch {
	case !in.awake || in.paused || now.Before(in.notBefore):
		return 0
	case !in.breaker.closed():
		if in.breaker.due(now) && inHand == 0 && in.busyTx == 0 {
			return 1
		}
		return 0
	case in.hasTx && in.busyTx >= in.endpoint.Concurrency:
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
		return max(0, slots-inHand)
	}
	room := slots*perSlot(mean) - inHand
	if in.hasTx {
		room = min(room, maxTxBatch, perSlot(in.meanTx))
	}
	if in.waiting > 0 && room < slots*perSlot(mean)/4 {
		return 0 // enough in hand; small fetches cost as much as large ones
	}
	return max(0, min(room, in.client.config.BatchLimit))
}

func perSlot(mean time.Duration) int {
	if mean <= 0 {
		return 1
	}
	return max(1, min(int(batchTime/mean), 1000))
}

// fetched takes in the result of a fetch: how many messages came and the highest seq among them.
func (in *instance) fetched(w work, got int, high int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done.Fetches++
	in.done.Received += uint64(got)
	doubts := in.start.doubts(w, got, high)
	if got > 0 {
		in.fetches++
		in.one = max(0, in.one-got)
		in.start.high = max(in.start.high, high)
		in.start.active = true
	}
	in.start.full = got >= w.n && got > 1
	if got >= w.n || w.wakes != in.wakes || !w.leftmost || doubts {
		if in.awake = true; !in.looking {
			nudge(in.woken) // somebody must see the end of it
		}
		return
	}
	in.awake = false
	nudge(in.short)
}

// notFetched has the next fetch begin where one failed, or was not begun.
func (in *instance) notFetched(w work) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.start.freed(w.after + 1)
}

// endFetch ends what wants began: what came, if anything, is in hand. Unless a batch is now handled on the connection,
// the connection counts no more as a slot of HandleTx handlers.
func (in *instance) endFetch(w work, handles bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fetching--
	if w.removes {
		in.asked -= w.n
	}
	if w.leftmost {
		now := time.Now()
		in.start.scanned(now, now.Sub(w.began))
	}
	if in.hasTx && !handles {
		in.busyTx--
	}
}

// endTx ends what endFetch left: the batch's HandleTx handlers are done.
func (in *instance) endTx() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.hasTx {
		in.busyTx--
	}
}
