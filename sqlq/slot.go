package sqlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// slots are the goroutines that handle messages, from whichever batch has some, until there are none; there are as many as the
// endpoint's Concurrency while there is work. How many are at work is counted in the hand.
type slots struct {
	hand     *hand
	handlers *handlers
	chunks   bool // some of the handlers are batch handlers outside of the receive transaction
	life     *life
	isIdle   func() bool // reports whether slots stand idle although the queue may hold messages; called with the hand's mutex
	kick     func()      // says that the instance may want something
}

// start starts so many, as far as there may be more. The caller has the hand's mutex.
func (s *slots) start(n int) {
	for range min(n, s.hand.concurrency-s.hand.busy) {
		s.hand.busy++
		s.life.goroutines.Add(1)
		go s.slot(nil, nil)
	}
}

// startMore starts so many, at most, for messages that wait.
func (s *slots) startMore(most int) {
	s.hand.mu.Lock()
	defer s.hand.mu.Unlock()
	s.start(min(most, s.hand.states[waiting]))
}

// resize has so many messages handled at a time from now on. Handlers that run are not ended for it.
func (s *slots) resize(concurrency int) {
	s.hand.mu.Lock()
	s.hand.concurrency = concurrency
	s.start(s.hand.states[waiting])
	s.hand.mu.Unlock()
	s.kick()
}

// slot handles messages until there are none. A handler may end its goroutine before; then another goes on with exited, the
// delivery that it had, and c, the chunk that begins with it, if there is one.
func (s *slots) slot(exited *delivery, c *chunk) {
	d, began := exited, time.Now()
	defer func() {
		if d != nil && d.exited {
			go s.slot(d, c)
			return
		}
		s.life.goroutines.Done()
	}()
	switch {
	case exited == nil:
	case c != nil:
		s.handlers.goexitChunk(c)
	default:
		s.handlers.goexit(exited)
	}
	for d, c = s.take(exited, c, 0); d != nil; {
		if c == nil {
			s.handlers.handle(d, nil)
		} else {
			s.handlers.handleChunk(c)
		}
		now := time.Now()
		d, c = s.take(d, c, now.Sub(began))
		began = now
	}
}

// take ends a finished delivery that took so long, if one is given, or the chunk that begins with it; and returns the next, with the chunk
// that it was taken for, if it is to be handled in one call with others. Without a next the slot ends.
func (s *slots) take(finished *delivery, chunked *chunk, took time.Duration) (d *delivery, c *chunk) {
	h := s.hand
	h.mu.Lock()
	switch {
	case finished == nil:
	case chunked != nil:
		chunked.finish(h, took)
	default:
		h.pace.took(took)
		h.finish(finished)
		if s.chunks {
			s.handlers.singles.over(finished)
		}
	}
	if h.busy <= h.concurrency { // else one slot less is wanted
		d = s.next()
	}
	switch {
	case d == nil:
		h.busy--
		h.tellEmpty()
	case s.chunks:
		c = s.chunkOf(d)
	}
	kick := len(h.finished) > 0 || h.isIdle() && s.isIdle()
	h.mu.Unlock()
	if kick {
		s.kick()
	}
	return d, c
}

// next takes the next message that waits. The caller has the hand's mutex.
func (s *slots) next() *delivery {
	h := s.hand
	if s.handlers.anyOpen() {
		return s.nextAllowed(time.Now())
	}
	for len(h.batches) > 0 {
		b := h.batches[0]
		if len(b.waiting) == 0 {
			h.batches = h.batches[1:]
			continue
		}
		d := b.waiting[0]
		if b.all == nil { // a batch whose deliveries are settled by themselves does not keep what has been handled
			b.waiting[0] = nil
		}
		b.waiting = b.waiting[1:]
		h.move(d, running)
		return d
	}
	return nil
}

// nextAllowed is next while messages of some type fail one after the other. What may not run is freed at the hold limit.
func (s *slots) nextAllowed(now time.Time) *delivery {
	h := s.hand
	h.batches = slices.DeleteFunc(h.batches, func(b *batch) bool { return len(b.waiting) == 0 })
	for _, b := range h.batches {
		for i, d := range b.waiting {
			if s.handlers.mayRun(d, now) {
				b.waiting = slices.Delete(b.waiting, i, i+1)
				h.move(d, running)
				return d
			}
		}
	}
	return nil
}

// handlers are an endpoint's handlers, by message type, and bring a delivery to its verdict: the slot's goroutine does, or the
// receiver's on whose connection it runs. Its fields are unchanged once the instance is made, but for byType, singles and
// the breakers, which have locks of their own.
type handlers struct {
	client   *Client
	endpoint *Endpoint
	ctx      context.Context // of the handlers
	life     *life
	hand     *hand
	refusals *refusals
	byType   *handlings
	opened   atomic.Int32 // breakers that are open
	apart    apart
	singles  singles // messages that batch handlers get by themselves

	slowed    func() // a breaker has opened
	recovered func() // one has closed
	probe     func() // it is time for a probe
}

// goesBack reports whether a delivery that is to be settled has no verdict.
func (d *delivery) goesBack() bool { return d.back || d.outcome.verdict == giveBack }

// handle brings a delivery to its verdict. tx is for HandleTx.
func (h *handlers) handle(d *delivery, tx *receiveTx) {
	if !d.exited && h.decided(d) {
		h.client.config.observing.decided(d)
		return
	}
	if !h.apart.begin(d, nil) {
		return
	}
	defer h.apart.end(d)
	h.attempt(d, tx)
}

// decided says whether the verdict on a delivery is known without its handler.
func (h *handlers) decided(d *delivery) bool {
	switch {
	case d.hasExpired():
		d.outcome = outcome{verdict: expire}
		if d.made() > 0 {
			h.client.config.messages.say(d.ctx, slog.LevelWarn, "sqlq: the time to live of a message ran out before its next attempt", h.endpoint.Name, d.stored.messageType, nil, "message", d.stored.id, "attempts", d.made())
		}
		return true
	case d.claim > store.Claimed:
		h.decideByClaim(d)
		return true
	case d.broken != nil:
		d.err = d.broken
	case d.handler == nil:
		d.err = fmt.Errorf("%w %q in endpoint %q: add one, or replay the message to the endpoint that has", ErrUnknownType, loggedText(d.stored.messageType), h.endpoint.Name)
		if h.awaitHandler(d) {
			return true
		}
	case d.handler.inTx && h.refusals.timesLost(d) >= maxLost:
		d.err = fmt.Errorf("%w, %d times: read to the end what it asks for, and leave no rows open for longer than 10 s; the server's log says what ended the connection", ErrConnectionLost, maxLost)
	case h.endpoint.Retry.hasCrashedTooOften(d):
		d.err = fmt.Errorf("%w, %s times: find out why (out of memory, os.Exit, a panic in a goroutine of the handler's?), then replay it", ErrCrashed, d.Headers[headerCrashes])
	default:
		return false
	}
	if !errors.Is(d.err, ErrCrashed) { // those attempts are all counted
		d.attempts.Add(1)
	}
	d.outcome = outcome{verdict: fail}
	h.failed(d)
	return true
}

// awaitHandler has a message whose type has no handler here wait for a process that has one, if it has not waited long enough.
// How long it did is counted in a header, by its pauses: they double from a second to a minute.
func (h *handlers) awaitHandler(d *delivery) bool {
	waited, err := time.ParseDuration(d.Headers[headerWaited])
	if err != nil || waited < 0 {
		waited = 0
	}
	left := h.endpoint.UnknownWait - waited
	if left <= 0 {
		return false
	}
	pause := min(max(waited, time.Second), time.Minute, left)
	headers, _ := d.storedHeaders()
	headers[headerWaited] = (waited + pause).String()
	text := encodeHeaders(headers)
	d.waited = &text
	d.wait(pause, fmt.Errorf("%w; it waits for a process that has, for up to %v", d.err, h.endpoint.UnknownWait))
	return true
}

// attempt runs the handler of a delivery to its verdict, immediate retries included. It does not return when the handler
// ends its goroutine; with a tx it goes on when it is called again.
func (h *handlers) attempt(d *delivery, tx *receiveTx) {
	for {
		if !d.exited {
			d.begin(int(d.attempts.Add(1)))
		}
		if tx != nil {
			began := time.Now()
			d.err = tx.run(d, nil)
			h.hand.tookTx(time.Since(began))
		} else {
			d.err = h.invoke(d, nil)
		}
		d.end()
		if tx != nil && tx.verdict != txDecides {
			h.client.config.observing.undone(d)
			return // the batch ends here, the message is neither handled nor failed
		}
		if d.err != nil && h.ctx.Err() != nil && d.batch.custody.mayGoBack() {
			d.outcome = outcome{verdict: giveBack}
			h.client.config.observing.undone(d)
			return
		}
		h.decide(d)
		h.client.config.observing.decided(d)
		if d.outcome.verdict != retryNow {
			break
		}
	}
	if d.err == nil {
		h.succeeded(d)
		return
	}
	d.out = nil
	h.failed(d)
}

// goexit ends a delivery whose handler has ended its goroutine.
func (h *handlers) goexit(d *delivery) {
	d.exited = false
	d.end()
	d.out = nil
	if h.ctx.Err() != nil && d.batch.custody.mayGoBack() {
		d.outcome = outcome{verdict: giveBack}
		h.client.config.observing.undone(d)
	} else {
		h.refused(d, errGoexit)
	}
}

// refused makes the server's refusal, or the loss of its transaction, a delivery's own failure. A retry at once waits
// for the mover, so that the attempt is written down.
func (h *handlers) refused(d *delivery, err error) {
	d.err, d.out = err, nil
	if h.decide(d); d.outcome.verdict == retryNow {
		d.outcome = outcome{verdict: retryLater}
	}
	h.client.config.observing.decided(d)
	h.failed(d)
}

// invoke calls the handler inside of its middleware. It does not return when the handler ends its goroutine.
func (h *handlers) invoke(d *delivery, tx pgx.Tx) error {
	d.exited = true
	err := call(func() error {
		ctx, inner, outer := h.client.config.observing.begun(h.ctx, d), h.endpoint.Middleware, h.client.config.HandleMiddleware
		if len(inner)+len(outer) == 0 || d.handler.batching != nil {
			return d.handler.run(ctx, tx, &d.Incoming)
		}
		handle := func(ctx context.Context, incoming *Incoming) error { return d.handler.run(ctx, tx, incoming) }
		for _, wrap := range slices.Backward(inner) {
			handle = wrap(handle)
		}
		for _, wrap := range slices.Backward(outer) {
			handle = wrap(handle)
		}
		return handle(ctx, &d.Incoming)
	})
	d.exited = false
	return err
}
