package ops

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// takeBatch is how many messages one transaction of Purge or Move takes.
const takeBatch = 1000

// purgeDelayedRows is how many delayed messages, of all queues, one transaction of Purge looks at.
const purgeDelayedRows = 5000

// Purged says what Purge removed.
type Purged struct {
	Ready   int64 // messages that were ready
	Delayed int64 // messages that were delayed
}

// PurgeOptions has the options of Purge. The zero value has the defaults.
type PurgeOptions struct {
	// Delayed removes the queue's delayed messages as well. The filter chooses among them by its own columns: its times
	// are due times. A filter that names numbers or has a limit, which mean ready messages, is refused with it.
	// Default: off. Cost: they are gone for good.
	Delayed bool
	ChangeOptions
}

// Purge removes the ready messages of a queue that a filter chooses and that were there when it began, for good, and returns
// how many, also together with an error. The zero Filter chooses all. Messages that a receiver holds or an instance has
// leased are being handled, and stay; so do failed ones. It works in batches: one that was interrupted returns an
// *InterruptedError, and Operations.Resume does the rest, unless it is about delayed messages, too: then it can be called again.
func (o Ready) Purge(ctx context.Context, queue string, f Filter, opts PurgeOptions) (purged Purged, err error) {
	if err := f.checkPurge(opts); err != nil {
		return purged, err
	}
	t, err := o.prepareTake(ctx, kindPurge, queue, f, opts.ChangeOptions)
	if err != nil {
		return purged, err
	}
	if err := o.checkTake(ctx, t); err != nil {
		return purged, err
	}
	told := write(t.filter, opts.Rate)
	told.Delayed = opts.Delayed
	if err := o.start(ctx, &t.running, told, query.Operation{Queue: &queue, UpTo: &t.span.UpTo}, query.Place{}); err != nil {
		return purged, err
	}
	if opts.Delayed { // first: meanwhile some may become ready
		purged.Delayed, err = o.purgeDelayed(ctx, t)
	}
	if err == nil && opts.Delayed && !opts.UpTo.taken() {
		// Delayed ones that became ready in the meantime are behind the place that the queue had then.
		t.span.UpTo, err = o.store.LastReady(ctx, o.pool, queue)
	}
	if err == nil {
		purged.Ready, err = o.purge(ctx, t)
	}
	if err != nil {
		err = o.noQueue(ctx, queue, fmt.Errorf("purge queue %q: %w", queue, err))
	}
	if opts.Delayed {
		return purged, errors.Join(err, o.end(ctx, t.id, err))
	}
	purged.Ready, err = o.conclude(ctx, t.running, purged.Ready, err)
	return purged, err
}

// purgeAgain returns what does the rest of a Purge.
func (o Ready) purgeAgain(r running, op Operation, upTo int64, f Filter, told written) (func(context.Context) error, error) {
	if told.Delayed {
		return nil, errors.New("a purge of delayed messages cannot be resumed: run it again")
	}
	chosen, err := f.chosenReady()
	return func(ctx context.Context) error {
		purged, err := o.purge(ctx, taking{running: r, queue: op.Queue, filter: f, chosen: chosen, span: query.Span{UpTo: upTo}})
		_, err = o.conclude(ctx, r, purged, err)
		return err
	}, err
}

// PreviewPurge counts what Purge would remove, and changes nothing. A queue that is not there is a *NoQueueError.
func (o Ready) PreviewPurge(ctx context.Context, queue string, f Filter, opts PurgeOptions) (v Preview, err error) {
	if err := f.checkPurge(opts); err != nil {
		return v, err
	}
	if v, err = o.previewTake(ctx, kindPurge, queue, f, opts.ChangeOptions); err != nil || !opts.Delayed {
		return v, err
	}
	f.Queue = queue
	n, more, _, err := Delayed(o).Count(ctx, f, 0)
	var gone *NoDelayedError
	if errors.As(err, &gone) { // it is among the ready ones, or nowhere
		err = nil
	}
	v.Delayed = Count{N: n, Estimated: more}
	return v, err
}

// checkPurge refuses a filter that a purge does not take.
func (f Filter) checkPurge(opts PurgeOptions) error {
	chosen, err := f.chosenReady()
	if err == nil && opts.Delayed && (len(chosen.Seqs) > 0 || f.Limit > 0 || opts.Limit > 0) {
		err = errors.New("numbers and a limit are of ready messages; purge the delayed ones apart")
	}
	return err
}

func (o Ready) purge(ctx context.Context, t taking) (removed int64, err error) {
	return o.take(ctx, t, func(tx pgx.Tx, span query.Span) (taken query.Taken, _ string, err error) {
		taken, err = o.store.PurgeReady(ctx, tx, t.queue, t.chosen, span)
		return taken, "", err
	})
}

// purgeDelayed removes the delayed messages of the queue that the filter chooses.
func (o Ready) purgeDelayed(ctx context.Context, t taking) (removed int64, err error) {
	last, err := o.store.LastDelayed(ctx, o.pool)
	if err != nil {
		return 0, err
	}
	var at query.DelayedKey
	return o.batches(ctx, t.running, purgeDelayedRows, func(tx pgx.Tx, _ query.OperationPlace, _ int64, b bound) (step, error) {
		n, next, err := o.store.PurgeDelayed(ctx, tx, t.queue, t.chosen, at, last, b.rows, b.bytes)
		return step{n: n, looked: int64(b.rows), end: next == nil, then: func() error {
			if next != nil {
				at = *next
			}
			return nil
		}}, err
	}, nil)
}
