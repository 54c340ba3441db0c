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

// Drained counts what happened to the messages of the drained queues.
type Drained struct {
	Handled int // handled successfully, or removed because they had expired
	Failed  int // moved to the error table
	Delayed int // not due yet: delayed by their sender, or waiting for a retry
}

// Drain runs the endpoints that were given to Open, or only the named ones, until they have nothing left to do: their queues are
// empty, nothing is in hand, no delayed message is due, and what their handlers have sent to one another is handled too. Then it
// stops them. Delayed messages that are not due yet stay, and so do the messages of other queues: see Advance and DrainAll. A
// message that fails does not fail the test: see ExpectNoneFailed.
//
// If that takes longer than Timeout, the test ends with a list of what is left.
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

// DrainAll alternates Drain and Advance to the next due time until nothing is delayed in the endpoints' queues. So messages
// whose handlers keep failing use up all their attempts and end up in the error table. If a message is delayed again and again,
// like one that a handler sends to itself, only Timeout ends it.
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

// Wait waits until the queues are as Drain leaves them, for tests in which the code under test runs its endpoints itself. Without
// names it waits for all queues. It does not wait for messages that the handlers of AtMostOnce endpoints have in hand: they are
// in no queue.
func (h *Harness) Wait(t TB, queues ...string) Drained {
	t.Helper()
	if len(queues) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
		defer cancel()
		all, err := h.store.Queues.Names(ctx, h.own)
		if err != nil {
			fatalf(t, "sqlqtest: list queues: %v", err)
		}
		queues = slices.DeleteFunc(all, func(name string) bool { return name == recorderQueue })
	}
	d := h.begin(t, queues)
	defer d.cancel()
	return d.drained(h.await(t, d))
}

// chosen returns the endpoints with those names, or all.
func (h *Harness) chosen(t TB, only []string) []sqlq.Endpoint {
	t.Helper()
	if len(h.endpoints) == 0 {
		fatalf(t, "sqlqtest: there is no endpoint to drain; pass endpoints to Open")
	}
	if len(only) == 0 {
		return h.endpoints
	}
	var chosen []sqlq.Endpoint
	for _, name := range only {
		i := slices.IndexFunc(h.endpoints, func(e sqlq.Endpoint) bool { return e.Name == name })
		if i < 0 {
			fatalf(t, "sqlqtest: Open was not given an endpoint %q, only %q", name, names(h.endpoints))
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

// draining is one Drain, DrainAll or Wait.
type draining struct {
	queues []string
	before states
	ctx    context.Context // ends after Harness.Timeout
	cancel context.CancelFunc
	ended  chan error // Run's result; nil if nothing runs
	// most are the running AtMostOnce endpoints: what they have in hand is in no table.
	most map[string]bool
}

func (h *Harness) begin(t TB, queues []string) *draining {
	t.Helper()
	d := &draining{queues: queues}
	d.ctx, d.cancel = context.WithTimeout(context.Background(), h.Timeout)
	var err error
	if d.before, err = h.states(d.ctx, queues); err != nil {
		d.cancel()
		fatalf(t, "sqlqtest: %v", err)
	}
	return d
}

// drained counts from the database what has happened since the start: messages that arrived and are in no table now were handled.
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
		default: // await has received it
		}
	}
}

// How often await looks.
const (
	lookFirst = 2 * time.Millisecond
	lookLast  = 25 * time.Millisecond
)

// await waits until the queues are settled. It looks with one statement, so in one snapshot, in which each message is in exactly
// one place: no message can be missed because it is on its way.
func (h *Harness) await(t TB, d *draining) states {
	t.Helper()
	for pause := lookFirst; ; pause = min(pause*3/2, lookLast) {
		handled := h.handledAtMostOnce(d) // first: what it counts has left the tables that are read next
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
			if errors.Is(err, sqlq.ErrAlreadyRunning) {
				err = fmt.Errorf("%w; if the test runs it, use Wait", err)
			}
			d.cancel()
			fatalf(t, "sqlqtest: the endpoints have stopped: %v", err)
		}
	}
}

// handledAtMostOnce counts the messages that AtMostOnce endpoints have handled and stored the outcome of.
func (h *Harness) handledAtMostOnce(d *draining) (n int) {
	for _, e := range h.Client.Stats().Endpoints {
		if d.most[e.Name] {
			n += int(e.Handled + e.Expired)
		}
	}
	return n
}

// gone counts the messages of those endpoints that are in no table any more: they were handled, or are in hand.
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

// giveUp ends the test with a list of what is left and the reason: err, or the timeout.
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
		fatalf(t, "sqlqtest: not done after %v, and listing what is left failed: %v", h.Timeout, err)
	}
	fatalf(t, "sqlqtest: not done after %v (Harness.Timeout). Left:\n%s", h.Timeout, strings.Join(left, "\n"))
}
