package sqlq

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Bounds of a flight.
const (
	maxFlights       = 2 // at a time: one commits while the other gathers
	maxFlightSize    = 1_000
	maxFlightedBytes = 16 << 20
	flightTime       = 5 * time.Minute
)

// flights lets sends to one queue that happen at the same time share a transaction. While flights are under way, further
// sends gather; the next flight takes all of them. Nobody waits for company: a send that finds a place flies at once,
// alone. Each queue has its own, so that a locked table holds up nobody else's sends.
type flights struct {
	client   *Client
	mu       sync.Mutex
	waiting  []*passenger
	underWay int
}

// flightsTo returns the flights to a queue; "" for what is published.
func (c *Client) flightsTo(queue string) *flights {
	if f, ok := c.flights.Load(queue); ok {
		return f.(*flights)
	}
	f, _ := c.flights.LoadOrStore(queue, &flights{client: c})
	return f.(*flights)
}

// passenger is one send in, or waiting for, a flight.
type passenger struct {
	envelope
	landed chan error // gets the result, once
}

// sendShared stores one message, in a transaction with whatever else is being sent at the moment, and returns the
// message's own result. When ctx ends before the message was taken along it is not sent; later nobody knows.
func (c *Client) sendShared(ctx context.Context, e envelope) error {
	f := c.flightsTo(e.queue)
	f.mu.Lock()
	if f.underWay < maxFlights && len(f.waiting) == 0 {
		f.underWay++
		f.mu.Unlock()
		err := c.storeOne(ctx, e)
		f.landed()
		return c.sendError(e, err)
	}
	p := &passenger{envelope: e, landed: make(chan error, 1)}
	f.waiting = append(f.waiting, p)
	f.mu.Unlock()
	select {
	case err := <-p.landed:
		return err
	case <-ctx.Done():
	}
	f.mu.Lock()
	if i := slices.Index(f.waiting, p); i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
		f.mu.Unlock()
		return c.sendError(e, ctx.Err())
	}
	f.mu.Unlock()
	select {
	case err := <-p.landed:
		return err
	default:
		return c.sendError(e, ctx.Err())
	}
}

// landed makes room for the next flight, and starts it where somebody waits.
func (f *flights) landed() {
	f.mu.Lock()
	if len(f.waiting) == 0 {
		f.underWay--
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	go f.fly()
}

// fly takes along those who wait, flight after flight, until nobody does.
func (f *flights) fly() {
	for {
		f.mu.Lock()
		n, size := 0, 0
		for n < len(f.waiting) && n < maxFlightSize && (n == 0 || size+len(f.waiting[n].Body) <= maxFlightedBytes) {
			size += len(f.waiting[n].Body)
			n++
		}
		if n == 0 {
			f.underWay--
			f.mu.Unlock()
			return
		}
		passengers := slices.Clone(f.waiting[:n])
		f.waiting = slices.Delete(f.waiting, 0, n)
		f.mu.Unlock()
		f.client.flyWith(passengers)
	}
}

// flyWith stores messages together. When the server refuses that, each is tried by itself, so that one sender's mistake
// is nobody else's; after a lost connection nobody knows, and everybody is told so.
func (c *Client) flyWith(passengers []*passenger) {
	// No sender's context may end the others' send, and a network that hangs must not hold up the next flight for ever.
	ctx, cancel := context.WithTimeout(context.Background(), flightTime)
	defer cancel()
	all := make([]envelope, len(passengers))
	for i, p := range passengers {
		all[i] = p.envelope
	}
	err := c.storeAll(ctx, all)
	if err == nil || connectionLost(err) {
		for _, p := range passengers {
			p.landed <- c.sendError(p.envelope, err)
		}
		return
	}
	for _, p := range passengers {
		p.landed <- c.sendError(p.envelope, c.storeOne(ctx, p.envelope))
	}
}

// storeOne stores one message by itself. A subscriber whose queue is dropped at that moment is nothing to the publisher.
func (c *Client) storeOne(ctx context.Context, e envelope) error {
	const patience = 5 // subscribers that go one after the other
	err := c.storeAll(ctx, []envelope{e})
	for i := 0; i < patience && e.queue == "" && sqlState(err) == undefinedTable; i++ {
		err = c.storeAll(ctx, []envelope{e})
	}
	return err
}
