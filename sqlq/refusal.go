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

// refusals are the messages of an instance that the server refused to settle. The instance's mutex guards them.
type refusals struct {
	times   map[ID]int    // how often, by message
	aside   map[int64]int // seqs that fetches leave out, and for how many reasons
	said    seldom        // of messages
	batches seldom
}

func newRefusals() refusals {
	return refusals{times: map[ID]int{}, aside: map[int64]int{}}
}

// isFull reports whether no more messages may be fetched.
func (in *instance) isFull() bool {
	return len(in.refusals.aside) >= maxAside || in.states[kept] >= maxKept
}

func (f *refusals) add(seq int64) { f.aside[seq]++ }

func (f *refusals) remove(seq int64) {
	if f.aside[seq]--; f.aside[seq] <= 0 {
		delete(f.aside, seq)
	}
}

// asides returns the seqs that a fetch leaves out.
func (f *refusals) asides() (seqs []int64) {
	for seq := range f.aside {
		seqs = append(seqs, seq)
	}
	return seqs
}

// refusedAgain notes that the server has refused to settle a delivery, says so now and then, and returns how long the
// message is to wait.
func (in *instance) refusedAgain(d *delivery, err error) time.Duration {
	in.mu.Lock()
	f := &in.refusals
	if len(f.times) > 10_000 {
		clear(f.times)
	}
	f.times[d.stored.id]++
	pause := min(firstRefusalPause<<min(f.times[d.stored.id]-1, 10), longestRefusalPause)
	others, say := f.said.may(time.Now())
	in.mu.Unlock()
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
	in.mu.Lock()
	in.refusals.add(seq)
	in.mu.Unlock()
	in.run.life.after(pause, func() {
		in.mu.Lock()
		in.refusals.remove(seq)
		in.mu.Unlock()
		in.source.freedSpans(span{seq, seq})
		in.wake()
	})
}

// setAsides returns a copy of what is set aside; nil when nothing is.
func (in *instance) setAsides() map[int64]int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.refusals.aside) == 0 {
		return nil
	}
	return maps.Clone(in.refusals.aside)
}

// reserve leaves the rows of deliveries to whoever settles them, until unreserve.
func (in *instance) reserve(ds []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range ds {
		in.refusals.add(d.seq)
	}
}

func (in *instance) unreserve(ds []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range ds {
		in.refusals.remove(d.seq)
	}
}

// keep has a leased or removed delivery settled again after a pause. A draining process cannot wait for it.
func (in *instance) keep(d *delivery, pause time.Duration) (keeps bool) {
	if in.run.schedule.isDraining() {
		return false
	}
	in.mu.Lock()
	in.move(d, kept)
	in.mu.Unlock()
	if in.run.schedule.isDraining() { // which began in between
		in.releaseKept()
		return true
	}
	in.run.life.after(pause, func() {
		in.mu.Lock()
		in.retryKept(d)
		in.mu.Unlock()
		in.run.schedule.kick()
	})
	return true
}

// retryKept has a kept delivery settled now.
func (in *instance) retryKept(d *delivery) {
	if d.state == kept {
		in.queueDecided(d)
	}
}

// releaseKept is the drain's: what is kept is settled once more, leased messages by giving them back.
func (in *instance) releaseKept() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range in.leases {
		if d.state == kept {
			in.returnUnbegun(d)
		}
	}
	for d := range in.removed {
		in.retryKept(d)
	}
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
