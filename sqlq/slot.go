package sqlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// startSlot starts a goroutine that handles messages until there are none. The caller has the instance's mutex.
func (in *instance) startSlot() {
	in.busy++
	in.run.life.goroutines.Add(1)
	go in.slot(nil)
}

// slot handles messages until there are none. A handler may end its goroutine before; then another goes on with exited, the
// delivery that it had.
func (in *instance) slot(exited *delivery) {
	d, began := exited, time.Now()
	defer func() {
		if d != nil && d.exited {
			go in.slot(d)
			return
		}
		in.run.life.goroutines.Done()
	}()
	if exited != nil {
		exited.exited = false
		exited.end()
		if in.ctx.Err() != nil && exited.batch.custody.mayGoBack() {
			exited.outcome = outcome{verdict: giveBack}
			in.client.config.observing.undone(exited)
		} else {
			in.refused(exited, errGoexit)
		}
	}
	for d = in.take(exited, 0); d != nil; {
		in.handle(d, nil)
		now := time.Now()
		d, began = in.take(d, now.Sub(began)), now
	}
}

// take ends a finished delivery that took so long, if one is given, and returns the next; nil ends the slot.
func (in *instance) take(finished *delivery, took time.Duration) *delivery {
	in.mu.Lock()
	var kick bool
	if finished != nil {
		learn(&in.mean, took)
		in.ended++
		in.finish(finished)
	}
	d := in.next()
	if d == nil {
		in.busy--
		in.tellEmpty()
	}
	kick = len(in.finished) > 0 || in.idle()
	in.mu.Unlock()
	if kick {
		in.run.schedule.kick()
	}
	return d
}

func (in *instance) next() *delivery {
	if in.opened.Load() > 0 {
		return in.nextAllowed(time.Now())
	}
	for len(in.batches) > 0 {
		b := in.batches[0]
		if len(b.waiting) == 0 {
			in.batches = in.batches[1:]
			continue
		}
		d := b.waiting[0]
		b.waiting[0], b.waiting = nil, b.waiting[1:] // a batch does not keep what has been handled
		in.move(d, running)
		return d
	}
	return nil
}

// nextAllowed is next while messages of some type fail one after the other. What may not run is freed at the hold limit.
func (in *instance) nextAllowed(now time.Time) *delivery {
	in.batches = slices.DeleteFunc(in.batches, func(b *batch) bool { return len(b.waiting) == 0 })
	for _, b := range in.batches {
		for i, d := range b.waiting {
			if in.mayRun(d, now) {
				b.waiting = slices.Delete(b.waiting, i, i+1)
				in.move(d, running)
				return d
			}
		}
	}
	return nil
}

// finish records a handled delivery; a leased one is to be settled by the next receiver that is free.
func (in *instance) finish(d *delivery) {
	d.endProbe()
	switch d.state {
	case leasing:
		in.move(d, leasingDecided)
	case recalled:
		in.move(d, decided) // it is queued already
	case returning:
		in.move(d, settling)
	case lost:
		in.move(d, freed)
		in.client.log.Warn("sqlq: a handler finished after its message was given to another receiver", "endpoint", in.endpoint.Name, "message", d.stored.id)
	default:
		in.move(d, decided)
		d.custody.handlerEnded(in, d)
	}
}

// goesBack reports whether a delivery that is to be settled has no verdict.
func (d *delivery) goesBack() bool { return d.back || d.outcome.verdict == giveBack }

// handle brings a delivery to its verdict. tx is for HandleTx.
func (in *instance) handle(d *delivery, tx *receiveTx) {
	if !d.exited && in.decided(d) {
		in.client.config.observing.decided(d)
		return
	}
	if !in.apart(d, nil) {
		return
	}
	defer in.rejoin(d)
	in.attempt(d, tx)
}

// decided says whether the verdict on a delivery is known without its handler.
func (in *instance) decided(d *delivery) bool {
	policy := in.endpoint.Retry
	switch {
	case !d.expires.IsZero() && !time.Now().Before(d.expires):
		d.outcome = outcome{verdict: expire}
		if d.made() > 0 {
			in.client.config.messages.say(d.ctx, slog.LevelWarn, "sqlq: the time to live of a message ran out before its next attempt", in.endpoint.Name, d.stored.messageType, nil, "message", d.stored.id, "attempts", d.made())
		}
		return true
	case d.claim > store.Claimed:
		in.decideByClaim(d)
		return true
	case d.broken != nil:
		d.err = d.broken
	case d.handler == nil:
		d.err = fmt.Errorf("%w %q in endpoint %q: add one, or replay the message to the endpoint that has", ErrUnknownType, loggedText(d.stored.messageType), in.endpoint.Name)
		if in.awaitHandler(d) {
			return true
		}
	case d.handler.inTx && in.refusals.timesLost(d) >= maxLost:
		d.err = fmt.Errorf("%w, %d times: read to the end what it asks for, and leave no rows open for longer than 10 s; the server's log says what ended the connection", ErrConnectionLost, maxLost)
	case d.crashes && d.made() >= policy.attempts():
		d.err = fmt.Errorf("%w, %s times: find out why (out of memory, os.Exit, a panic in a goroutine of the handler's?), then replay it", ErrCrashed, d.Headers[headerCrashes])
	default:
		return false
	}
	if !errors.Is(d.err, ErrCrashed) { // those attempts are all counted
		d.attempts.Add(1)
	}
	d.outcome = policy.decide(d.made(), Unrecoverable(d.err), 0)
	in.failed(d)
	return true
}

// awaitHandler has a message whose type has no handler here wait for a process that has one, if it has not waited long enough.
// How long it did is counted in a header, by its pauses: they double from a second to a minute.
func (in *instance) awaitHandler(d *delivery) bool {
	waited, err := time.ParseDuration(d.Headers[headerWaited])
	if err != nil || waited < 0 {
		waited = 0
	}
	left := in.endpoint.UnknownWait - waited
	if left <= 0 {
		return false
	}
	pause := min(max(waited, time.Second), time.Minute, left)
	headers, _ := d.storedHeaders()
	headers[headerWaited] = (waited + pause).String()
	text := encodeHeaders(headers)
	d.waited = &text
	d.wait(pause, fmt.Errorf("%w; it waits for a process that has, for up to %v", d.err, in.endpoint.UnknownWait))
	return true
}

// attempt runs the handler of a delivery to its verdict, immediate retries included. It does not return when the handler
// ends its goroutine; with a tx it goes on when it is called again.
func (in *instance) attempt(d *delivery, tx *receiveTx) {
	policy := in.endpoint.Retry
	for {
		if !d.exited {
			d.begin(int(d.attempts.Add(1)))
		}
		if tx != nil {
			began := time.Now()
			d.err = tx.run(d)
			in.tookTx(time.Since(began))
		} else {
			d.err = in.invoke(d, nil)
		}
		d.out = d.end()
		if tx != nil && tx.verdict != txDecides {
			in.client.config.observing.undone(d)
			return // the batch ends here, the message is neither handled nor failed
		}
		if d.err != nil && in.ctx.Err() != nil && d.batch.custody.mayGoBack() {
			d.outcome = outcome{verdict: giveBack}
			in.client.config.observing.undone(d)
			return
		}
		d.outcome = policy.decide(d.made(), d.err, in.client.config.rand())
		in.client.config.observing.decided(d)
		if d.outcome.verdict != retryNow {
			break
		}
	}
	if d.err == nil {
		if d.handler.success() {
			in.recovered()
		}
		return
	}
	d.out = nil
	in.failed(d)
}

// refused makes the server's refusal, or the loss of its transaction, a delivery's own failure. A retry at once waits
// for the mover, so that the attempt is written down.
func (in *instance) refused(d *delivery, err error) {
	d.err, d.out = err, nil
	if d.outcome = in.endpoint.Retry.decide(d.made(), err, in.client.config.rand()); d.outcome.verdict == retryNow {
		d.outcome = outcome{verdict: retryLater}
	}
	in.client.config.observing.decided(d)
	in.failed(d)
}

// failed records a failed attempt. What no handler has seen says nothing about the endpoint's health.
func (in *instance) failed(d *delivery) {
	if d.broken != nil || errors.Is(d.err, ErrUndecodable) || errors.Is(d.err, ErrUnknownType) || errors.Is(d.err, ErrCrashed) {
		return
	}
	if d.handler == nil {
		return
	}
	now := time.Now()
	if d.handler.failure(now, d.made() > 1+in.endpoint.Retry.Immediate || d.failedBefore()) {
		in.slowed()
		in.client.log.WarnContext(d.ctx, "sqlq: messages of a type fail one after the other; slowing it to one probe at a time", "endpoint", in.endpoint.Name, "type", d.stored.messageType, "err", loggedError(d.err))
	}
	d.handler.arm(now, &in.run.life, in.probe)
}

// invoke calls the handler inside of its middleware. It does not return when the handler ends its goroutine.
func (in *instance) invoke(d *delivery, tx pgx.Tx) error {
	d.exited = true
	err := call(func() error {
		handle := func(ctx context.Context, incoming *Incoming) error { return d.handler.run(ctx, tx, incoming) }
		for i := len(in.endpoint.Middleware) - 1; i >= 0; i-- {
			handle = in.endpoint.Middleware[i](handle)
		}
		outer := in.client.config.HandleMiddleware
		for i := len(outer) - 1; i >= 0; i-- {
			handle = outer[i](handle)
		}
		return handle(in.client.config.observing.begun(in.ctx, d), &d.Incoming)
	})
	d.exited = false
	return err
}

// tookTx learns how long HandleTx handlers take; take does it for the others.
func (in *instance) tookTx(d time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	learn(&in.meanTx, d)
	in.endedTx = time.Now()
}

// learn moves a mean towards what another handler took. One that took much longer than the others says little of them, and
// may just have waited for the processor: it counts for nine times the mean at most.
func learn(mean *time.Duration, took time.Duration) {
	if *mean == 0 {
		*mean = max(took, 1)
	} else {
		*mean += (min(took, 9*max(*mean, 100*time.Microsecond)) - *mean) / 8
	}
}
