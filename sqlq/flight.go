package sqlq

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Bounds of a flight, and how many idle flights are kept for the next send.
const (
	maxFlights       = 2 // at a time; the second only beside one that is slow
	slowFlight       = 10 * time.Millisecond
	maxFlightSize    = 1_000
	maxFlightedBytes = 16 << 20
	flightTime       = 5 * time.Minute
	maxIdleFlights   = 1_000
)

// flights lets sends along one route that happen at the same time share a transaction. While a flight is under way, further
// sends gather; the next flight takes all of them. Nobody waits for company: a send that finds a place flies at once,
// alone. Each route has its own, so that a locked table holds up no other queue's commands, and no event that its queue
// is not subscribed to.
//
// There is one flight at a time, because a statement costs the server and the driver far more than a message in it does:
// two at a time halve each other's company and so do twice the work. Only when a flight is slow, on a connection that
// hangs for example, is there another beside it, so that one of them alone does not hold up the rest.
type flights struct {
	client   *Client
	mu       sync.Mutex
	waiting  []*passenger
	underWay *flight // nil: none but slow ones
	slow     int     // how many besides have been under way for longer than slowFlight
	watched  bool    // a timer is set that looks whether the one under way is slow
	gone     bool    // forgotten while idle: there may be others for the route by now
}

// route is what messages have in common that share flights: the queue of commands, or the type of events, whose copies go
// to the same queues.
type route struct {
	queue, event string
}

func routeOf(e *envelope) route {
	if e.queue == "" {
		return route{event: e.Type}
	}
	return route{queue: e.queue}
}

// flight is a place in the air.
type flight struct {
	began time.Time
}

// passenger is one send in, or waiting for, a flight.
type passenger struct {
	envelope
	landed chan error // gets the result, once
}

// departures are the flights of every route that messages were sent along lately. Routes may come and go, such as queues
// that are made for one conversation each, so those that are idle are forgotten when there are many.
type departures struct {
	byRoute sync.Map // route → *flights; read without a lock by every send

	mu     sync.Mutex
	n      int // in byRoute
	forget int // at how many the idle ones are forgotten
}

// along returns the flights along a route, locked.
func (d *departures) along(r route, client *Client) *flights {
	for {
		found, ok := d.byRoute.Load(r)
		if !ok {
			found = d.add(r, client)
		}
		f := found.(*flights)
		f.mu.Lock()
		if !f.gone {
			return f
		}
		f.mu.Unlock()
	}
}

func (d *departures) add(r route, client *Client) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n >= max(d.forget, maxIdleFlights) {
		d.forgetIdle()
		d.forget = 2 * d.n // those that are left are busy: not to be looked through for each new route
	}
	f, there := d.byRoute.LoadOrStore(r, &flights{client: client})
	if !there {
		d.n++
	}
	return f
}

// forgetIdle forgets flights that nobody waits for or is in. Holds d.mu.
func (d *departures) forgetIdle() {
	d.byRoute.Range(func(r, found any) bool {
		f := found.(*flights)
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.waiting) == 0 && f.underWay == nil && f.slow == 0 {
			f.gone = true
			d.byRoute.Delete(r)
			d.n--
		}
		return true
	})
}

// sendShared stores one message, in a transaction with whatever else is being sent at the moment, and returns the
// message's own result. When ctx ends before the message was taken along it is not sent; later nobody knows.
func (c *Client) sendShared(ctx context.Context, e envelope) error {
	f := c.departures.along(routeOf(&e), c)
	if len(f.waiting) == 0 && f.free() {
		this := f.takeOff()
		f.mu.Unlock()
		err := c.storeOne(ctx, e)
		f.mu.Lock()
		f.land(this)
		f.mu.Unlock()
		return c.sendError(err, e)
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
		return c.sendError(ctx.Err(), e)
	}
	f.mu.Unlock()
	select {
	case err := <-p.landed:
		return err
	default:
		return c.sendError(ctx.Err(), e)
	}
}

// free says whether a flight may start now. Holds f.mu.
func (f *flights) free() bool { return f.underWay == nil && f.slow < maxFlights }

// takeOff takes the place of the flight under way. Holds f.mu.
func (f *flights) takeOff() *flight {
	f.underWay = &flight{began: time.Now()}
	f.watch(slowFlight)
	return f.underWay
}

// watch looks after a while whether the flight under way has become slow, and if so lets another start. One timer serves
// many flights: to set one for each would cost as much as a message. Holds f.mu.
func (f *flights) watch(after time.Duration) {
	if f.watched {
		return
	}
	f.watched = true
	time.AfterFunc(after, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watched = false
		if f.underWay == nil {
			return
		}
		if left := slowFlight - time.Since(f.underWay.began); left > 0 {
			f.watch(left)
			return
		}
		f.underWay = nil
		f.slow++
		f.startNext()
	})
}

// land gives a flight's place back and lets those who wait start. Holds f.mu.
func (f *flights) land(this *flight) {
	if f.underWay == this {
		f.underWay = nil
	} else {
		f.slow--
	}
	f.startNext()
}

// startNext starts the flight of those who have waited the longest, if it may. Holds f.mu.
func (f *flights) startNext() {
	if len(f.waiting) > 0 && f.free() {
		go f.fly(f.takeOff(), f.next())
	}
}

// next takes out those who have waited the longest. Holds f.mu.
func (f *flights) next() []*passenger {
	n, size := 0, 0
	for n < len(f.waiting) && n < maxFlightSize && (n == 0 || size+len(f.waiting[n].Body) <= maxFlightedBytes) {
		size += len(f.waiting[n].Body)
		n++
	}
	next := slices.Clone(f.waiting[:n])
	f.waiting = slices.Delete(f.waiting, 0, n)
	return next
}

// fly flies, and goes on flying with those who have gathered meanwhile, until nobody has or another flight has taken
// the place.
func (f *flights) fly(this *flight, passengers []*passenger) {
	for {
		f.client.flyWith(passengers)
		f.letBoard()
		f.mu.Lock()
		if len(f.waiting) == 0 || f.underWay != this {
			f.land(this)
			f.mu.Unlock()
			return
		}
		passengers = f.next()
		this = f.takeOff()
		f.mu.Unlock()
	}
}

// letBoard lets goroutines that are ready to run go first, as long as that brings new passengers: the senders that the
// last flight has just released may send again at once, and would otherwise find that the next one has left almost empty.
// It waits for nobody who is not about to run.
func (f *flights) letBoard() {
	const turns = 3
	for range turns {
		before := f.gathered()
		runtime.Gosched()
		if f.gathered() == before {
			return
		}
	}
}

func (f *flights) gathered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
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
			p.landed <- c.sendError(err, p.envelope)
		}
		return
	}
	for _, p := range passengers {
		p.landed <- c.sendError(c.storeOne(ctx, p.envelope), p.envelope)
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
