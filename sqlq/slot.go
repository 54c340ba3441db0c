package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// slot handles messages until there are none.
func (in *instance) slot() {
	d := in.take(nil)
	for d != nil {
		in.handle(d, nil)
		d = in.take(d)
	}
}

// take ends a finished delivery, if one is given, and returns the next; nil ends the slot.
func (in *instance) take(finished *delivery) *delivery {
	in.mu.Lock()
	var kick bool
	if finished != nil {
		in.finish(finished)
	}
	d := in.next()
	if d == nil {
		in.busy--
	}
	kick = len(in.finished) > 0 || in.idle()
	in.mu.Unlock()
	if kick {
		in.run.schedule.kick()
	}
	return d
}

func (in *instance) next() *delivery {
	if !in.breaker.closed() && (in.busy > 1 || !in.breaker.due(time.Now())) {
		return nil // one probe at a time, and not before its time; the rest is freed at the hold limit
	}
	for len(in.batches) > 0 {
		b := in.batches[0]
		if len(b.waiting) == 0 {
			in.batches = in.batches[1:]
			continue
		}
		d := b.waiting[0]
		b.waiting = b.waiting[1:]
		in.waiting--
		d.started = true
		return d
	}
	return nil
}

// finish records a handled delivery; a leased one is to be settled by the next receiver that is free.
func (in *instance) finish(d *delivery) {
	d.finished = true
	switch {
	case d.lease != 0:
		in.finished = append(in.finished, d)
	case d.lost:
		in.client.log.Warn("sqlq: a handler finished after its message was given to another receiver", "endpoint", in.endpoint.Name, "message", d.ID)
	}
	if d.batch.open--; d.batch.open == 0 {
		close(d.batch.done)
	}
}

// handle runs the handler of a delivery to its verdict, immediate retries included. tx is for HandleTx.
func (in *instance) handle(d *delivery, tx *receiveTx) {
	policy := in.endpoint.Retry
	switch {
	case !d.expires.IsZero() && !time.Now().Before(d.expires):
		d.expired, d.outcome = true, outcome{verdict: complete}
		return
	case d.broken != nil:
		d.err = d.broken
	case d.handler == nil:
		d.err = fmt.Errorf("%w %q in endpoint %q: add one, or replay the message to the endpoint that has", ErrUnknownType, d.Type, in.endpoint.Name)
	case d.crashes && d.attempts >= policy.attempts():
		d.err = Unrecoverable(fmt.Errorf("%w, %s times", ErrCrashed, d.Headers[headerCrashes]))
	}
	if d.err != nil {
		in.mu.Lock()
		d.attempts++
		in.mu.Unlock()
		d.outcome = policy.decide(d.attempts, Unrecoverable(d.err), 0)
		in.failed(d)
		return
	}
	if d.crashes {
		in.alone.Lock()
		defer in.alone.Unlock()
	} else {
		in.alone.RLock()
		defer in.alone.RUnlock()
	}
	for {
		in.mu.Lock()
		d.attempts++
		in.mu.Unlock()
		began := time.Now()
		d.begin(d.attempts)
		if tx != nil {
			d.err = tx.run(d)
		} else {
			d.err = in.invoke(d, nil)
		}
		d.out = d.end()
		in.took(time.Since(began), tx != nil)
		if tx != nil && tx.verdict != txDecides {
			return // the batch ends here, the message is neither handled nor failed
		}
		if d.err != nil && in.ctx.Err() != nil {
			d.giveUp = true
			return
		}
		d.outcome = policy.decide(d.attempts, d.err, in.client.config.rand())
		if d.outcome.verdict != retryNow {
			break
		}
	}
	if d.err == nil {
		in.breaker.success()
		return
	}
	d.out = nil
	in.failed(d)
}

func (in *instance) failed(d *delivery) {
	if in.breaker.failure(time.Now()) {
		in.client.log.Warn("sqlq: messages fail one after the other; slowing to one probe at a time", "endpoint", in.endpoint.Name, "err", d.err)
	}
	if pause := in.breaker.pause(); pause > 0 {
		time.AfterFunc(pause, in.probe)
	}
	if d.outcome.verdict == fail {
		in.client.log.Error("sqlq: message failed", "endpoint", in.endpoint.Name, "type", d.Type, "message", d.ID, "attempts", d.attempts, "err", d.err)
	}
}

// probe goes on after the breaker's pause: with a message in hand, if there is one, else with a fetch.
func (in *instance) probe() {
	in.mu.Lock()
	if in.waiting > 0 && in.busy == 0 {
		in.busy++
		go in.slot()
	}
	in.mu.Unlock()
	in.run.schedule.kick()
}

// invoke calls the handler inside of its middleware.
func (in *instance) invoke(d *delivery, tx pgx.Tx) error {
	return call(func() error {
		handle := func(ctx context.Context, incoming *Incoming) error { return d.handler.run(ctx, tx, incoming) }
		for i := len(in.endpoint.Middleware) - 1; i >= 0; i-- {
			handle = in.endpoint.Middleware[i](handle)
		}
		outer := in.client.config.HandleMiddleware
		for i := len(outer) - 1; i >= 0; i-- {
			handle = outer[i](handle)
		}
		return handle(in.ctx, &d.Incoming)
	})
}

// took learns how long handlers take.
func (in *instance) took(d time.Duration, inTx bool) {
	in.mu.Lock()
	mean := &in.mean
	if inTx {
		mean = &in.meanTx
	}
	if *mean == 0 {
		*mean = max(d, 1)
	} else {
		*mean += (d - *mean) / 8
	}
	in.mu.Unlock()
}
