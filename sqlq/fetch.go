package sqlq

import (
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
	n        int   // messages to fetch
	byLease  bool  // fetch by lease, because a process of the endpoint died
	removes  bool  // fetch at most once: commit the removal
	by       int32 // the instance number that leases
	wakes    int

	after    int64 // the seq to fetch after
	leftmost bool  // nothing can be left of it: a short batch means that the queue is empty
	gaps     []gap // to be looked for as well, all up to after
	closed   int64 // numbers up to it were closed before the fetch
	high     int64 // the highest seq seen before it
	epoch    int   // of start
	began    time.Time

	// The fetch also reads which number was given out last, and then who writes; given is 0 where the role may not.
	reads   bool
	given   int64
	writers []string
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
		if in.meanSize > 0 {
			w.n = min(w.n, max(1, fetchWanted/in.meanSize))
		}
	}
	if w.n > 0 {
		var ok bool
		if w.after, w.leftmost, ok = in.start.after(now, w.n); !ok {
			w.n = 0
		}
	}
	if w.n > 0 {
		w.began = now
		in.start.lookForGaps(&w)
		if in.hasTx {
			in.busyTx++
		}
		in.asked += w.n
		in.fetching++
	}
	return w, w.n > 0 || len(w.finished) > 0
}

// room is the number of messages to fetch: what the slots finish within batchTime, less what is in hand.
func (in *instance) room(now time.Time, byLease bool) int {
	inHand := in.busy + in.waiting
	if in.most > 0 || in.endpoint.AtMostOnce {
		inHand += in.asked
	}
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
	most := slots * perSlot(mean)
	if in.most > 0 {
		most = min(most, in.most)
	}
	room := most - inHand
	if in.hasTx {
		room = min(room, maxTxBatch, perSlot(in.meanTx))
	}
	if in.waiting > 0 && room < most/4 {
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
	in.start.fetched(w, numbers, got, rest)
	in.learnSize(ms)
	if got > 0 {
		in.fetches++
		in.one = max(0, in.one-got)
		in.start.active = true
	}
	in.start.full = got >= w.n && got > 1
	if got >= w.n || rest || w.wakes != in.wakes || !w.leftmost {
		if in.awake = true; !in.looking {
			nudge(in.woken) // somebody must see the end of it
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
	in.start.notFetched(&w)
}

// endFetch ends what wants began: what came, if anything, is in hand. Unless a batch is now handled on the connection,
// the connection counts no more as a slot of HandleTx handlers.
func (in *instance) endFetch(w work, handles bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.fetching--
	in.asked -= w.n
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
