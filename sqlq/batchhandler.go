package sqlq

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"
)

// Batch says how a handler made by [HandleBatch] or [HandleBatchTx] is called. The zero value is the default.
type Batch struct {
	// Most is the maximum number of messages that one call of the handler gets. A call gets what is there, and does not wait for more.
	// Default: 100. Unit: messages, 1 to 1,000; Config.BatchLimit limits it too. Cost: more: more memory, up to this many bodies for each
	// slot of the endpoint, and more work that is repeated when one message fails.
	Most int
	// NoMiddleware says that the handler runs without Config.HandleMiddleware and Endpoint.Middleware, which are made for one message.
	// Without it, Run refuses a batch handler where there is any. What should wrap the handler can wrap the function.
	// Default: off. Cost: none.
	NoMiddleware bool
}

const (
	defaultMost = 100
	maxMost     = 1_000
)

// BatchDelivery is one of the messages that a batch handler is given: decoded, and as an Incoming.
type BatchDelivery[T Message] struct {
	*Incoming
	Message T // decoded

	failure error // that the handler named; the Incoming's mu guards it
}

// Fail says that this message has failed with err, and that the others of the call have nothing to do with it: see [HandleBatch]. A nil
// error takes it back. Several goroutines of the handler may call it; once the handler has returned, it changes nothing and the log says so.
func (d *BatchDelivery[T]) Fail(err error) {
	d.mu.Lock()
	late := d.closed
	if !late {
		d.failure = err
	}
	d.mu.Unlock()
	if late {
		d.client.log.Error("sqlq: a message was said to have failed after its batch handler had returned; it is settled without that", "endpoint", d.Endpoint,
			"type", loggedText(d.Type), "message", d.ID, "err", loggedError(err))
	}
}

// Failure returns the error of Fail; nil if the message has not failed.
func (d *BatchDelivery[T]) Failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure
}

// HandleBatch makes a Handler that is given several messages of type T in one call: as many as one fetch has brought, up to b.Most. It
// runs at least once for each message, as with [Handle], and what the function sends through a delivery is sent if that message is
// handled. A call occupies one slot of the endpoint's Concurrency; if it takes longer than Config.HoldLimit, all its messages are leased.
//
// If the function returns nil, the messages for which it has not called Fail are handled. A message with Fail has failed: an attempt is
// counted, and the endpoint's [RetryPolicy] decides, where an immediate retry is a delayed one without a delay. If the function returns
// an error or panics, nothing is handled. Then those with Fail have failed, and the others come back. If Fail was called for none,
// each of them comes back and is handled by itself, in a call with one message, because any of them may be at fault. Only the error
// of such a call is an attempt; an error of a call with several messages counts for none. An error that counts for no message anyway
// ([GiveBack], or by choice of RetryPolicy.Decide) is for all messages of the call without Fail: they wait.
//
// A message that cannot be decoded fails alone, and the function does not get it. Messages that have failed before, and those that may
// have killed a process, get a call of their own.
//
// Middleware is not run: see [Batch].NoMiddleware. An endpoint that is AtMostOnce has no batch handlers, and neither have raw messages.
func HandleBatch[T Message](b Batch, handle func(ctx context.Context, ds []*BatchDelivery[T]) error) Handler {
	return newBatchHandler(b, false, func(ctx context.Context, _ pgx.Tx, ds []*BatchDelivery[T]) error { return handle(ctx, ds) })
}

// HandleBatchTx is HandleBatch with the transaction of [HandleTx]: what the function writes in tx, what it sends through the deliveries, and
// the removal of all messages that it has handled commit together or not at all. So one statement, such as an INSERT with unnest or a
// CopyFrom, can write the effects of hundreds of messages.
//
// If the function returns an error, or calls Fail for all messages, what it has written is undone. If it returns nil and has called Fail for
// some, what it has written stays: so it must not have written anything for these, or have undone it (tx.Begin).
func HandleBatchTx[T Message](b Batch, handle func(ctx context.Context, tx pgx.Tx, ds []*BatchDelivery[T]) error) Handler {
	return newBatchHandler(b, true, handle)
}

// batching is what a batch handler has besides a Handler for single messages.
type batching struct {
	Batch
	// run calls the function with the messages that can be decoded. It sets the error of each that cannot, and of each that the function
	// says has failed; also if the function panics or ends its goroutine.
	run func(ctx context.Context, tx pgx.Tx, ins []*Incoming, errs []error) error
}

func newBatchHandler[T Message](b Batch, inTx bool, handle func(context.Context, pgx.Tx, []*BatchDelivery[T]) error) Handler {
	goType := reflect.TypeFor[T]()
	if goType == reflect.TypeFor[Raw]() || goType == reflect.TypeFor[*Raw]() {
		panic("sqlq: there are no batch handlers for raw messages: use HandleRaw or HandleRawTx, which are given one at a time")
	}
	if b.Most == 0 {
		b.Most = defaultMost
	}
	h := newHandler(inTx, func(ctx context.Context, tx pgx.Tx, d *Delivery[T]) error {
		one := &BatchDelivery[T]{Incoming: d.Incoming, Message: d.Message}
		err := handle(ctx, tx, []*BatchDelivery[T]{one})
		if failure := one.Failure(); failure != nil {
			return failure
		}
		return err
	})
	h.batching = &batching{Batch: b, run: func(ctx context.Context, tx pgx.Tx, ins []*Incoming, errs []error) error {
		all := make([]BatchDelivery[T], len(ins))
		ds := make([]*BatchDelivery[T], 0, len(ins))
		for i, in := range ins {
			d := &all[i]
			d.Incoming = in
			if errs[i] = call(func() error { return decodeMessage(in, goType, &d.Message) }); errs[i] == nil {
				ds = append(ds, d)
			}
		}
		if len(ds) == 0 {
			return nil
		}
		defer func() {
			for i := range all {
				if errs[i] == nil {
					errs[i] = all[i].Failure()
				}
			}
		}()
		return handle(ctx, tx, ds)
	}}
	return h
}

// validateBatches returns what is wrong with an endpoint's batch handlers.
func (e Endpoint) validateBatches(c Config) (errs []error) {
	for _, h := range e.Handlers {
		b := h.batching
		if b == nil {
			continue
		}
		if b.Most < 1 || b.Most > maxMost {
			errs = append(errs, fmt.Errorf("the batch handler for %q has Most %d: it must be from 1 to 1,000", h.messageType, b.Most))
		}
		if e.AtMostOnce {
			errs = append(errs, fmt.Errorf("AtMostOnce and a batch handler for %q: when a batch fails its messages are handled again, one at a time, but with AtMostOnce there is no second time; use Handle, or turn AtMostOnce off", h.messageType))
		}
		where := ""
		switch {
		case b.NoMiddleware:
		case len(c.HandleMiddleware) > 0:
			where = "Config.HandleMiddleware"
		case len(e.Middleware) > 0:
			where = "Endpoint.Middleware"
		}
		if where != "" {
			errs = append(errs, fmt.Errorf("%s and a batch handler for %q: middleware is made for one message and would not run; set Batch.NoMiddleware if the handler is to do without, and wrap its function instead", where, h.messageType))
		}
	}
	return errs
}

// errAllFailed is what a batch handler has returned if all messages have failed by themselves: what it has written is undone.
var errAllFailed = errors.New("all messages of the batch have failed")
