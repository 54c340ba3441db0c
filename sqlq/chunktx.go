package sqlq

import (
	"errors"
	"time"
)

// gather puts those HandleTx messages of a batch together that may share a call, each behind the first of its type.
func (b *batch) gather() {
	h := &b.in.handlers
	sharing := map[*handling][]*delivery{}
	var order [][]*delivery
	at := map[*handling]int{}
	for _, d := range b.inTx {
		if !h.mayShare(d) || b.in.solos.isAlone(d) {
			order = append(order, []*delivery{d})
			continue
		}
		if _, known := at[d.handler]; !known {
			at[d.handler] = len(order)
			order = append(order, nil)
		}
		sharing[d.handler] = append(sharing[d.handler], d)
	}
	if len(at) == 0 {
		return
	}
	for handler, i := range at {
		order[i] = sharing[handler]
	}
	b.inTx = b.inTx[:0]
	for _, ds := range order {
		b.inTx = append(b.inTx, ds...)
	}
}

// chunkAt returns the messages from the n-th on that share a call, which is perhaps under way; nil: the n-th is handled by itself.
func (run *txRun) chunkAt(n int) *chunk {
	b := run.b
	if b.in.mostShare == 0 || run.chunk != nil {
		return run.chunk
	}
	mayShare := func(d *delivery) bool {
		return d.handler == b.inTx[n].handler && b.in.handlers.mayShare(d) && !b.in.solos.isAlone(d)
	}
	if !mayShare(b.inTx[n]) {
		return nil
	}
	end := n + 1
	for end < min(len(b.inTx), n+b.inTx[n].handler.batching.Most) && mayShare(b.inTx[end]) {
		end++
	}
	if end == n+1 {
		return nil
	}
	return &chunk{all: b.inTx[n:end]}
}

// handleChunk runs the handler of a chunk that begins with the n-th message, and says whether another may follow. Where the handler's work
// is undone the messages are freed, and come again: one at a time, unless it is known who is at fault, or that nobody is.
func (run *txRun) handleChunk(n int, c *chunk) (more bool) {
	r, b, tx := run.r, run.b, run.tx
	h := &b.in.handlers
	if run.chunk == nil {
		if n > 0 && (run.isLongEnough() || b.in.solos.isApart(c.all[0].stored.messageType)) {
			b.freed = true
			return false
		}
		run.calls++
		c.move(&b.in.hand, running)
		h.beginChunk(c)
		run.chunk = c
	}
	err := run.call(c)
	run.chunk = nil
	switch verdict := tx.verdict; {
	case len(c.given) == 0:
	case verdict == txDecides, verdict == txAgain && err != nil && !errors.Is(err, errApart):
		h.conclude(c, err)
	default:
		for _, d := range c.given {
			d.outcome, d.out = outcome{verdict: giveBack}, nil
			h.client.config.observing.undone(d)
		}
		if verdict != txYields && verdict != txAgain {
			h.singles.add(c.given)
		}
	}
	b.freed = c.settle(&b.in.hand) || b.freed
	switch tx.verdict {
	case txDecides, txAgain:
		tx.later = true
		if more = tx.mayFollow(); !more && n+len(c.all) < len(b.inTx) {
			b.freed = true
		}
		return more
	case txAborted, txOpen:
		r.rollback()
		b.again(n)
	case txBroken:
		b.again(n)
	}
	return false
}

// call runs the handler of a chunk, whose attempts have begun, in the receive transaction.
func (run *txRun) call(c *chunk) error {
	b := run.b
	if len(c.given) == 0 {
		run.tx.verdict = txDecides
		return nil
	}
	b.in.handlers.apart.begin(c.given[0], nil)
	defer b.in.handlers.apart.end(c.given[0])
	run.r.handling.Store(c.all[0])
	began := time.Now()
	err := run.tx.run(c.all[0], c)
	b.in.hand.tookTx(time.Since(began) / time.Duration(len(c.all)))
	run.r.handling.Store(nil)
	c.end()
	return err
}
