package sqlq

import (
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// chunk is several messages of a fetched batch that one call of a batch handler gets. They are of one type and have not been tried
// before. Whoever takes them brings all of them on together: a slot, or the receiver on whose connection the handler runs.
type chunk struct {
	all   []*delivery // at least two, in order; the first one's exited says that the handler was called and has not returned
	given []*delivery // of all, those on which nothing has decided before
	errs  []error     // of given: why a message has failed by itself
}

// mayShare reports whether a message may be handled in one call with others of its type.
func (h *handlers) mayShare(d *delivery) bool {
	return d.handler != nil && d.handler.batching != nil && d.before == 0 && d.broken == nil && d.claim <= store.Claimed && !d.crashes && !d.probe &&
		d.handler.closed() && !h.singles.has(d)
}

// handleChunk brings the messages of a chunk to their verdicts, or has them go back without one. It does not return when the handler
// ends its goroutine.
func (h *handlers) handleChunk(c *chunk) {
	if h.beginChunk(c); len(c.given) == 0 {
		return
	}
	first := c.given[0]
	h.apart.begin(first, nil) // none of them is to be kept apart
	defer h.apart.end(first)
	err := h.invokeChunk(c, nil)
	c.end()
	h.conclude(c, err)
}

// beginChunk decides on those messages whose verdict is known, and begins an attempt of each of the others.
func (h *handlers) beginChunk(c *chunk) {
	c.given = make([]*delivery, 0, len(c.all))
	for i, d := range c.all {
		d.slow.Store(i > 0) // the log names one of them
		if h.decided(d) {
			h.client.config.observing.decided(d)
			continue
		}
		d.begin(int(d.attempts.Add(1)))
		c.given = append(c.given, d)
	}
	c.errs = make([]error, len(c.given))
}

// invokeChunk calls the handler of a chunk. It does not return when the handler ends its goroutine.
func (h *handlers) invokeChunk(c *chunk, tx pgx.Tx) error {
	ins := make([]*Incoming, len(c.given))
	for i, d := range c.given {
		h.client.config.observing.begun(h.ctx, d)
		ins[i] = &d.Incoming
	}
	c.all[0].exited = true
	err := call(func() error { return c.given[0].handler.batching.run(h.ctx, tx, ins, c.errs) })
	failed := c.check()
	if c.all[0].exited = false; failed == len(c.given) && err == nil {
		return errAllFailed
	}
	return err
}

// check looks at the errors that the handler has named, whose methods may panic or end the goroutine, and returns how many there are.
func (c *chunk) check() (failed int) {
	for i, err := range c.errs {
		if err != nil {
			c.errs[i] = errGoexit // if that ends the goroutine
			c.errs[i] = call(func() error { return err })
			failed++
		}
	}
	return failed
}

// end closes the attempts of a chunk.
func (c *chunk) end() {
	for _, d := range c.given {
		d.end()
	}
}

// conclude says what becomes of the messages of a chunk, whose call ended with err. Those that are neither handled nor failed by themselves
// go back, and no attempt of theirs is counted: by themselves, if nothing tells which is at fault; or when their time has come, if the
// handler gives back what it was given.
func (h *handlers) conclude(c *chunk, err error) {
	ending := h.ctx.Err() != nil
	waits := !ending && h.waits(err)
	var back []*delivery
	for i, d := range c.given {
		switch own := c.errs[i]; {
		case own == nil && err == nil:
			d.outcome = outcome{verdict: complete}
			h.client.config.observing.decided(d)
			h.succeeded(d)
		case own == nil && waits:
			h.refused(d, err)
		case own == nil || ending:
			d.outcome, d.err, d.out = outcome{verdict: giveBack}, err, nil
			h.client.config.observing.undone(d)
			back = append(back, d)
		default:
			h.refused(d, own)
		}
	}
	if len(back) == len(c.given) && !ending {
		h.singles.add(back)
	}
}

// waits reports whether messages wait, and no attempt is counted, if their handler returns an error.
func (h *handlers) waits(err error) bool {
	asked, _ := h.endpoint.Retry.ask(1, err)
	return h.endpoint.Retry.decide(1, err, asked, 0).verdict == wait
}

// goexitChunk ends a chunk whose handler has ended its goroutine.
func (h *handlers) goexitChunk(c *chunk) {
	c.check()
	c.all[0].exited = false
	c.end()
	h.conclude(c, errGoexit)
}

// chunkOf takes what else waits of the batch of a message that a slot has taken, if one call handles several of its type; nil: it is
// handled by itself. The caller has the hand's mutex.
func (s *slots) chunkOf(d *delivery) *chunk {
	b := d.batch
	if b.custody.isSingle() || !s.handlers.mayShare(d) {
		return nil
	}
	c, left := &chunk{all: []*delivery{d}}, b.waiting[:0]
	for _, other := range b.waiting {
		if len(c.all) < d.handler.batching.Most && other.handler == d.handler && s.handlers.mayShare(other) {
			s.hand.move(other, running)
			c.all = append(c.all, other)
		} else {
			left = append(left, other)
		}
	}
	clear(b.waiting[len(left):])
	if b.waiting = left; len(c.all) == 1 {
		return nil
	}
	return c
}

// isUndone reports whether the end of a call leaves a message without a verdict.
func (d *delivery) isUndone() bool { return d.outcome.verdict == giveBack && !d.outcome.chosen }

// finish records a handled chunk that took so long. The caller has the hand's mutex.
func (c *chunk) finish(h *hand, took time.Duration) {
	h.pace.tookChunk(took, len(c.all))
	for _, d := range c.all {
		if d.isUndone() && d.state == running && !d.custody.isSingle() {
			h.move(d, freed) // with the end of the batch's transaction
			d.batch.undone = true
			continue
		}
		h.finish(d)
	}
}

// singles are messages that batch handlers are to get by themselves: a call with several of them has failed, and did not say which.
// mu guards all of it but some; it is one of the last in the order of locks.
type singles struct {
	some atomic.Bool // there are ids: it can be seen without mu

	mu     ranked[ofPart]
	ids    map[ID]struct{}
	coming int // so many are expected of the next fetches
}

// add notes that messages which come again are to be handled by themselves.
func (s *singles) add(ds []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil || len(s.ids) > mostRemembered {
		s.ids = map[ID]struct{}{}
	}
	for _, d := range ds {
		s.ids[d.stored.id] = struct{}{}
	}
	s.coming += len(ds)
	s.some.Store(true)
}

func (s *singles) has(d *delivery) bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, has := s.ids[d.stored.id]
	return has
}

// over forgets a message that was handled by itself.
func (s *singles) over(d *delivery) {
	if !s.some.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, d.stored.id)
	s.some.Store(len(s.ids) > 0)
}

// came notes how many messages a fetch brought.
func (s *singles) came(messages int) {
	if !s.some.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming = max(0, s.coming-messages)
}

// areComing reports whether the next fetches are likely to bring such messages.
func (s *singles) areComing() bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.coming > 0
}
