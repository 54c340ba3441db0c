package sqlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// pulls are the queues of which a Client receives by Receive. mu guards byQueue, and nothing is locked or waited for while it is held.
type pulls struct {
	mu      sync.Mutex
	byQueue map[string]*pulling
}

// of returns the pulling of a queue, which it begins if there is none.
func (ps *pulls) of(c *Client, queue string) *pulling {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.byQueue[queue]
	if p == nil {
		p = &pulling{client: c, queue: queue, begun: make(chan struct{}), gone: make(chan struct{}), inHand: map[*Incoming]*Received{}}
		if ps.byQueue == nil {
			ps.byQueue = map[string]*pulling{}
		}
		ps.byQueue[queue] = p
		go p.begin()
	}
	return p
}

func (ps *pulls) remove(p *pulling) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.byQueue, p.queue)
}

// pulling is an endpoint whose handler hands each message to a Receive that waits, and waits in its slot until the message's end is asked
// for. Its instance fetches as many messages as are wanted.
//
// mu guards what is below it. It is taken behind the hand's mutex, as a part's is.
type pulling struct {
	client  *Client
	queue   string
	begun   chan struct{} // closed when running or err is set
	running *Running
	err     error         // why it could not begin
	gone    chan struct{} // closed when it has ended for want of callers

	mu      ranked[ofPart]
	waiters []*waiter
	coming  int                     // messages in hand that no waiter has been given yet
	inHand  map[*Incoming]*Received // nil: coming
	idle    *time.Timer             // runs while nothing is wanted and nothing in hand
	ended   bool                    // it ends for want of callers
}

// waiter is a Receive that waits. pulling.mu guards got.
type waiter struct {
	n     int
	got   []*Received
	first chan struct{} // of one place: it has got the first message
	ready chan struct{} // of one place: it has got what there is
}

const (
	// pullIdle is how long a pulling goes on while nobody wants anything of it.
	pullIdle = 5 * time.Second
	// gatherFor is how long a Receive that has a message waits at most for those that came with it.
	gatherFor = 10 * time.Millisecond
)

var (
	errPullingEnded = errors.New("the endpoint has ended for want of callers")
	errPulledAgain  = errors.New("middleware has called its handler again")
)

func (p *pulling) endpoint() Endpoint {
	return Endpoint{
		Name: p.queue, MustExist: true, pulling: p, Concurrency: maxConcurrency, SlowAfter: -1,
		Otherwise: newRawHandler("", false, func(ctx context.Context, _ pgx.Tx, d *Delivery[Raw]) error { return p.handle(ctx, d.Incoming) }),
		Retry:     pullRetry,
	}
}

// pullRetry is the default policy without retries at once, for which a message would have to be handed out again while its
// Fail waits for the commit: it comes back without a pause instead.
var pullRetry = func() (p RetryPolicy) {
	byDefault := RetryPolicy{}.withDefaults()
	for _, round := range append([]time.Duration{0}, byDefault.Delays...) {
		if len(p.Delays) > 0 {
			p.Delays = append(p.Delays, round)
		}
		p.Delays = append(p.Delays, make([]time.Duration, byDefault.Immediate)...)
	}
	p.Immediate = -1
	return p
}()

// begin runs the endpoint.
func (p *pulling) begin() {
	defer close(p.begun)
	if p.running, p.err = start(context.Background(), p.client, p.endpoint()); p.err != nil {
		p.client.pulls.remove(p)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest()
}

func (p *pulling) group() *group { return p.running.group }

// receive waits for messages.
func (p *pulling) receive(ctx context.Context, n int) ([]*Received, error) {
	w := &waiter{n: n, first: make(chan struct{}, 1), ready: make(chan struct{}, 1)}
	if !p.enter(w) {
		select {
		case <-p.gone:
			return nil, errPullingEnded
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p.group().run.dispatcher.kick()
	select {
	case <-w.first:
		gather := time.NewTimer(gatherFor)
		defer gather.Stop()
		select {
		case <-w.ready:
		case <-gather.C:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	case <-p.group().stopped:
	}
	got := p.leave(w)
	switch {
	case len(got) > 0:
		return got, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case p.client.closed.Load():
		return nil, ErrClosed
	}
	return nil, errPullingEnded
}

func (p *pulling) enter(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	if p.waiters = append(p.waiters, w); p.idle != nil {
		p.idle.Stop()
		p.idle = nil
	}
	return true
}

// leave takes a waiter's messages; it gets no more.
func (p *pulling) leave(w *waiter) []*Received {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters = slices.DeleteFunc(p.waiters, func(other *waiter) bool { return other == w })
	p.rest()
	return w.got
}

// rest has the pulling end, unless somebody wants a message before, when nothing is outstanding and nobody waits. The caller has mu.
func (p *pulling) rest() {
	if len(p.waiters) > 0 || len(p.inHand) > 0 || p.idle != nil || p.ended {
		return
	}
	var idle *time.Timer
	idle = time.AfterFunc(pullIdle, func() {
		p.mu.Lock()
		p.ended = p.idle == idle // else somebody has come
		ends := p.ended
		p.mu.Unlock()
		if ends {
			p.end()
		}
	})
	p.idle = idle
}

func (p *pulling) end() {
	_ = p.running.Stop(context.Background()) // which ends when all is settled
	p.client.pulls.remove(p)
	close(p.gone)
}

// room is how many messages to fetch, besides those that were asked for already. It is called with the hand's mutex.
func (p *pulling) room(asked int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := 0
	for _, w := range p.waiters {
		wanted += w.n - len(w.got)
	}
	return max(0, wanted-p.coming-asked)
}

// wantsNone reports whether messages are handed to calls of Receive, and none of them wants any. p may be nil.
func (p *pulling) wantsNone() bool { return p != nil && p.room(0) == 0 }

// handle hands a message to a waiter and returns what was asked for it: the handler of the endpoint.
func (p *pulling) handle(ctx context.Context, in *Incoming) error {
	r := &Received{Incoming: in, pulling: p, verdict: make(chan error, 1), over: make(chan struct{})}
	if !p.hand(r) {
		return GiveBack(0, "")
	}
	select {
	case err := <-r.verdict:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-r.verdict:
		return err
	default:
		return ctx.Err()
	}
}

// hand gives a message to the first waiter; false: nobody waits.
func (p *pulling) hand(r *Received) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiters) == 0 {
		return false
	}
	switch before, is := p.inHand[r.Incoming]; {
	case before != nil:
		before.end(errPulledAgain)
	case is:
		p.coming--
	}
	p.inHand[r.Incoming] = r
	w := p.waiters[0]
	w.got = append(w.got, r)
	nudge(w.first)
	if len(w.got) == w.n {
		nudge(w.ready)
		p.waiters = slices.Delete(p.waiters, 0, 1)
	}
	p.tellReady()
	return true
}

// tellReady tells the waiters that have messages when no more are coming. The caller has mu.
func (p *pulling) tellReady() {
	if p.coming > 0 {
		return
	}
	for _, w := range p.waiters {
		if len(w.got) > 0 {
			nudge(w.ready)
		}
	}
}

// moved notes that a delivery has gone over to another state. It is called with the hand's mutex, by whoever the delivery belongs to.
func (p *pulling) moved(d *delivery, from, to deliveryState) {
	if to != waiting && to != decided && to != lost && !isOver.has(to) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r, is := p.inHand[&d.Incoming]
	switch {
	case to == waiting:
		p.inHand[&d.Incoming] = nil
		p.coming++
		return
	case !is || r != nil && to == decided:
		return
	case r == nil: // nobody was given it
		p.coming--
		p.tellReady()
	default:
		r.end(r.outcome(d, from, to))
	}
	delete(p.inHand, &d.Incoming)
	p.rest()
}

// end closes a Received. The caller has pulling.mu.
func (r *Received) end(result error) {
	r.result = result
	close(r.over)
}

// outcome says what has become of what was asked for a delivery that is over.
func (r *Received) outcome(d *delivery, from, to deliveryState) error {
	wanted := verdict(r.wanted.Load())
	switch {
	case to == lost, d.back, !r.asked.Load():
	case from != decided && from != settling && from != returning: // what became of it is another's to say
	case wanted == giveBack && (to == freed || to == settled):
		return nil
	case to == settled && wanted == complete && d.outcome.verdict != complete && d.outcome.verdict != giveBack:
		return fmt.Errorf("the end of the message could not be stored as it is: %w", d.err)
	case to == settled && d.outcome.verdict != giveBack:
		return nil
	}
	if r.pulling.group().handlerCtx.Err() != nil {
		return fmt.Errorf("%w: it was not ended before Config.DrainTimeout, or the context of Close, and has gone back", ErrLeaseLost)
	}
	return fmt.Errorf("%w: the connection or the lease was lost before its end was stored for certain", ErrLeaseLost)
}
