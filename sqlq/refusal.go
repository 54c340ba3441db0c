package sqlq

import (
	"fmt"
	"maps"
	"time"
)

// The server may refuse to settle a message whatever its verdict is: a trigger on the error table fails, say, or a privilege
// is missing. Then the message is neither lost nor handled over and over. It waits among the delayed, and no attempt is
// counted; where the server refuses that too, this process leaves it where it is: a held one in its queue, a leased or
// removed one in hand, to be settled again. The pauses grow from a second to a minute, by message.
const (
	firstRefusalPause, longestRefusalPause = time.Second, time.Minute
	// maxAside and maxKept bound how many messages an instance leaves in its queue and keeps in hand. Beyond it fetches
	// nothing: it could settle nothing either.
	maxAside, maxKept = 1000, 100
)

// refusals is what an instance remembers of messages that it could not settle: those that the server refused, and those over which
// the server was in trouble, or the connection was lost. mu guards all of it; it is one of the last in the order of locks.
type refusals struct {
	mu       ranked[ofPart]
	times    map[ID]int    // how often the server refused to settle a message
	troubles map[ID]int    // how often it was in trouble over one
	lost     map[ID]int    // how often the connection was lost under the HandleTx handler of one
	aside    map[int64]int // seqs that fetches leave out, and for how many reasons
	said     seldom        // of messages
	batches  seldom
}

// mostRemembered limits how many messages or message types are remembered: beyond it all are forgotten.
const mostRemembered = 10_000

func newRefusals() refusals {
	return refusals{times: map[ID]int{}, troubles: map[ID]int{}, lost: map[ID]int{}, aside: map[int64]int{}}
}

// remember counts something that happened to a message.
func remember(times map[ID]int, id ID) int {
	if len(times) > mostRemembered {
		clear(times)
	}
	times[id]++
	return times[id]
}

// isFull reports whether no more messages may be fetched, while so many are kept.
func (f *refusals) isFull(kept int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.aside) >= maxAside || kept >= maxKept
}

func (f *refusals) add(seqs ...int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, seq := range seqs {
		f.aside[seq]++
	}
}

func (f *refusals) remove(seqs ...int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, seq := range seqs {
		if f.aside[seq]--; f.aside[seq] <= 0 {
			delete(f.aside, seq)
		}
	}
}

// reserve leaves the rows of deliveries to whoever settles them, until unreserve.
func (f *refusals) reserve(ds []*delivery) { f.add(seqsOf(ds)...) }

func (f *refusals) unreserve(ds []*delivery) { f.remove(seqsOf(ds)...) }

func seqsOf(ds []*delivery) []int64 {
	seqs := make([]int64, len(ds))
	for i, d := range ds {
		seqs[i] = d.seq
	}
	return seqs
}

// asideSeqs returns the seqs that a fetch leaves out.
func (f *refusals) asideSeqs() (seqs []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for seq := range f.aside {
		seqs = append(seqs, seq)
	}
	return seqs
}

// asides returns a copy of what is set aside; nil when nothing is.
func (f *refusals) asides() map[int64]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.aside) == 0 {
		return nil
	}
	return maps.Clone(f.aside)
}

// refused notes that the server has refused to settle a message, and returns how long that is to wait; say, whether the log is
// to have it, and how many others it has not.
func (f *refusals) refused(id ID) (pause time.Duration, others int, say bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pause = min(firstRefusalPause<<min(remember(f.times, id)-1, 10), longestRefusalPause)
	others, say = f.said.may(time.Now())
	return pause, others, say
}

// refusedBatch is refused for a batch.
func (f *refusals) refusedBatch() (others int, say bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batches.may(time.Now())
}

// over forgets messages that have been settled after all.
func (f *refusals) over(ds []*delivery) {
	if len(ds) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range ds {
		delete(f.times, d.stored.id)
	}
}

// maxTroubled is how often the server may be in trouble over the settle of a message. Then the message may be the reason: it
// fails by itself.
const maxTroubled = 10

// mayWait says whether none of the deliveries has had the server in trouble too often, and notes that it has once more.
func (f *refusals) mayWait(ds []*delivery) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	may := true
	for _, d := range ds {
		may = remember(f.troubles, d.stored.id) <= maxTroubled && may
	}
	return may
}

// maxLost is how often the receive connection may be lost under one HandleTx handler. Losing the database is nobody's
// failure, but a handler that never keeps its connection must not come back for ever.
const maxLost = 5

func (f *refusals) lostWith(d *delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	remember(f.lost, d.stored.id)
}

func (f *refusals) timesLost(d *delivery) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost[d.stored.id]
}

// refusedAgain notes that the server has refused to settle a delivery, says so now and then, and returns how long the
// message is to wait.
func (in *instance) refusedAgain(d *delivery, err error) time.Duration {
	pause, others, say := in.refusals.refused(d.stored.id)
	if say {
		in.client.log.Error("sqlq: the server refuses to settle a message; it waits and is tried again, with growing pauses", "endpoint", in.endpoint.Name,
			"type", loggedText(d.stored.messageType), "message", d.stored.id, "pause", pause, "others", others, "err", loggedError(err))
	}
	return pause
}

// wait has a delivery come again later, with the attempts that it had before.
func (d *delivery) wait(pause time.Duration, why error) {
	d.outcome, d.err, d.out = outcome{verdict: wait, delay: pause}, why, nil
}

// setAside leaves the row of a held delivery alone for a while.
func (in *instance) setAside(seq int64, pause time.Duration) {
	in.refusals.add(seq)
	in.group.life.after(pause, func() {
		in.refusals.remove(seq)
		in.source.freedSpans(span{seq, seq})
		in.wake()
	})
}

// keep has a leased or removed delivery settled again after a pause. A draining process cannot wait for it.
func (in *instance) keep(d *delivery, pause time.Duration) (keeps bool) {
	if in.phase.isDraining() {
		return false
	}
	in.hand.keep(d)
	if in.phase.isDraining() { // which began in between
		in.hand.releaseKept()
		return true
	}
	in.group.life.after(pause, func() {
		in.hand.retryKept(d)
		in.run.dispatcher.kick()
	})
	return true
}

// seldom lets a line into the log once a minute at most.
type seldom struct {
	last    time.Time
	omitted int
}

// may says whether the line may be written now, and how many were left out since the last one.
func (s *seldom) may(now time.Time) (omitted int, ok bool) {
	if !s.last.IsZero() && now.Sub(s.last) < time.Minute {
		s.omitted++
		return 0, false
	}
	omitted, s.last, s.omitted = s.omitted, now, 0
	return omitted, true
}

// refusalOf is why a message waits whose settle the server refuses.
func refusalOf(err error) error {
	return fmt.Errorf("the server refuses to store what became of the message: %w", err)
}
