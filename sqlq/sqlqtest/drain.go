package sqlqtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// Drained is what became of the messages of the queues that were drained.
type Drained struct {
	Handled int // handled with success, or removed because they had expired
	Failed  int // moved to the error table
	Delayed int // left: they wait for their time, deferred by their sender or to be tried again
}

// Drain runs the endpoints that Open was given, or only those that are named, until all they have to do is done: their
// queues are empty, nothing is in hand, nothing delayed is due; and what their handlers have sent to one another is handled
// too. Then they are stopped. What is delayed and not yet due stays, and so do the messages of other queues: see Advance
// and DrainAll. A message that fails is no failure of the test: see ExpectNoneFailed.
//
// When that takes longer than Patience the test ends with a list of what is still there.
func (h *Harness) Drain(t TB, only ...string) Drained {
	t.Helper()
	endpoints := h.chosen(t, only)
	queues := names(endpoints)
	d := h.begin(t, queues)
	if d.before.settled() {
		return d.drained(d.before)
	}
	defer h.run(t, d, endpoints)()
	return d.drained(h.await(t, d))
}

// DrainAll is Drain and Advance to the next due time, in turns, until nothing is delayed in the endpoints' queues. So messages
// whose handlers go on failing spend all their attempts, and end in the error table. A message that is delayed anew for ever,
// as one that a handler sends to itself, never ends it but for Patience.
func (h *Harness) DrainAll(t TB, only ...string) Drained {
	t.Helper()
	endpoints := h.chosen(t, only)
	d := h.begin(t, names(endpoints))
	if d.before.settled() && d.before.delayed() == 0 {
		return d.drained(d.before)
	}
	defer h.run(t, d, endpoints)()
	for {
		state := h.await(t, d)
		if state.delayed() == 0 {
			return d.drained(state)
		}
		if err := h.advanceToNext(d.ctx, d.queues); err != nil {
			h.giveUp(t, d, err)
		}
	}
}

// Settle waits until the queues are as Drain leaves them, for tests in which the code under test runs its endpoints by itself.
// Without a name it is all queues. What the handlers of an endpoint that is AtMostOnce have in hand is in no queue, and is not
// waited for.
func (h *Harness) Settle(t TB, queues ...string) Drained {
	t.Helper()
	if len(queues) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), h.Patience)
		defer cancel()
		all, err := h.store.QueueNames(ctx, h.own)
		if err != nil {
			fatalf(t, "sqlqtest: list queues: %v", err)
		}
		queues = slices.DeleteFunc(all, func(name string) bool { return name == recorderQueue })
	}
	d := h.begin(t, queues)
	defer d.cancel()
	return d.drained(h.await(t, d))
}

// chosen returns the endpoints of those names, or all.
func (h *Harness) chosen(t TB, only []string) []sqlq.Endpoint {
	t.Helper()
	if len(h.endpoints) == 0 {
		fatalf(t, "sqlqtest: there is no endpoint to drain: give them to Open")
	}
	if len(only) == 0 {
		return h.endpoints
	}
	var chosen []sqlq.Endpoint
	for _, name := range only {
		i := slices.IndexFunc(h.endpoints, func(e sqlq.Endpoint) bool { return e.Name == name })
		if i < 0 {
			fatalf(t, "sqlqtest: Open was given no endpoint %q, but %q", name, names(h.endpoints))
		}
		chosen = append(chosen, h.endpoints[i])
	}
	return chosen
}

func names(endpoints []sqlq.Endpoint) (names []string) {
	for _, e := range endpoints {
		names = append(names, e.Name)
	}
	return names
}

// draining is one Drain, DrainAll or Settle.
type draining struct {
	queues []string
	before states
	ctx    context.Context // ends with the patience
	cancel context.CancelFunc
	ended  chan error // Run's result; nil: nothing runs
	// most are the endpoints that run and are AtMostOnce: what they have in hand is in no table.
	most map[string]bool
}

func (h *Harness) begin(t TB, queues []string) *draining {
	t.Helper()
	d := &draining{queues: queues}
	d.ctx, d.cancel = context.WithTimeout(context.Background(), h.Patience)
	var err error
	if d.before, err = h.states(d.ctx, queues); err != nil {
		d.cancel()
		fatalf(t, "sqlqtest: %v", err)
	}
	return d
}

// drained counts from the database what happened since the beginning: what came and is in no table any more was handled.
func (d *draining) drained(after states) Drained {
	d.cancel()
	return Drained{
		Handled: d.before.total() - after.total() + after.arrived() - d.before.arrived(),
		Failed:  after.failed() - d.before.failed(),
		Delayed: after.delayed(),
	}
}

// run starts the endpoints; the returned function stops them and waits.
func (h *Harness) run(t TB, d *draining, endpoints []sqlq.Endpoint) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	d.ended, d.most = make(chan error, 1), map[string]bool{}
	for _, e := range endpoints {
		d.most[e.Name] = e.AtMostOnce
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.ended <- h.Client.Run(ctx, endpoints...)
	}()
	return func() {
		t.Helper()
		cancel()
		<-ended
		select {
		case err := <-d.ended:
			if err != nil {
				t.Errorf("sqlqtest: run the endpoints: %v", err)
			}
		default: // await has taken it
		}
	}
}

// How often await looks.
const (
	lookFirst = 2 * time.Millisecond
	lookLast  = 25 * time.Millisecond
)

// await waits until the queues are settled. One look is one statement, and so one snapshot, in which each message is in one
// place: there is no moment at which one is on its way and not seen.
func (h *Harness) await(t TB, d *draining) states {
	t.Helper()
	for pause := lookFirst; ; pause = min(pause*3/2, lookLast) {
		handled := h.handledAtMostOnce(d) // first: what it counts is out of the tables that are looked at then
		now, err := h.states(d.ctx, d.queues)
		if err != nil || d.ctx.Err() != nil {
			h.giveUp(t, d, err)
		}
		if now.settled() && d.gone(now) == handled {
			return now
		}
		select {
		case <-time.After(pause):
		case <-d.ctx.Done():
		case err := <-d.ended:
			if errors.Is(err, sqlq.ErrRunning) {
				err = fmt.Errorf("%w; where the test runs it, wait with Settle", err)
			}
			d.cancel()
			fatalf(t, "sqlqtest: the endpoints have stopped: %v", err)
		}
	}
}

// handledAtMostOnce counts what endpoints that are AtMostOnce have handled and stored the outcome of.
func (h *Harness) handledAtMostOnce(d *draining) (n int) {
	for _, e := range h.Client.Stats().Endpoints {
		if d.most[e.Name] {
			n += int(e.Handled + e.Expired)
		}
	}
	return n
}

// gone counts what came to those endpoints and is in no table any more: it was handled, or is in hand.
func (d *draining) gone(now states) int {
	most := func(all states) (some states) {
		for _, q := range all {
			if d.most[q.queue] {
				some = append(some, q)
			}
		}
		return some
	}
	before, after := most(d.before), most(now)
	return before.total() - after.total() + after.arrived() - before.arrived()
}

// giveUp ends the test with what is still there, and why: err, or the patience is at its end.
func (h *Harness) giveUp(t TB, d *draining, err error) {
	t.Helper()
	late := d.ctx.Err() != nil
	d.cancel()
	if !late {
		fatalf(t, "sqlqtest: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	left, err := h.left(ctx, d.queues)
	if err != nil {
		fatalf(t, "sqlqtest: not done after %v, and what is left cannot be read: %v", h.Patience, err)
	}
	fatalf(t, "sqlqtest: not done after %v (Harness.Patience). Still there:\n%s", h.Patience, strings.Join(left, "\n"))
}
