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

// PurgeOptions says how Purge works. The zero value is good.
type PurgeOptions struct {
	// Delayed removes the queue's delayed messages as well. The filter chooses among them by its own columns: its times
	// are due times. A filter that names numbers or has a limit, which mean ready messages, is refused with it.
	// Default: off. Cost: they are gone for good.
	Delayed bool
	Looking
}

// Purge removes the ready messages of a queue that a filter chooses and that were there when it began, for good, and returns
// how many, also together with an error. The zero Filter chooses all. Messages that a receiver holds or an instance has
// leased are being handled, and stay; so do failed ones. It works in batches: one that was interrupted returns an
// *InterruptedError, and Operations.Resume does the rest, unless it is about delayed messages, too: then it can be called again.
func (o Ready) Purge(ctx context.Context, queue string, f Filter, opts PurgeOptions) (purged Purged, err error) {
	chosen, err := f.chosenToPurge(opts)
	if err != nil {
		return purged, err
	}
	if err := o.try(ctx, chosen); err != nil {
		return purged, err
	}
	span, err := o.span(ctx, queue, chosen)
	if err != nil {
		return purged, o.noQueue(ctx, queue, fmt.Errorf("purge queue %q: %w", queue, err))
	}
	if f, err = o.absolute(ctx, f); err != nil {
		return purged, err
	}
	told := write(f, 0)
	told.Delayed = opts.Delayed
	r := running{kind: kindPurge}
	if r.id, err = o.begin(ctx, kindPurge, told, query.Operation{Queue: &queue, UpTo: &span.UpTo}); err != nil {
		return purged, err
	}
	err = o.purge(ctx, queue, r.id, chosen, span, int64(f.limit()), opts, &purged)
	if err != nil {
		err = o.noQueue(ctx, queue, fmt.Errorf("purge queue %q: %w", queue, err))
	}
	if opts.Delayed {
		return purged, errors.Join(err, o.end(ctx, r.id, err))
	}
	purged.Ready, err = o.conclude(ctx, r, purged.Ready, err)
	return purged, err
}

// purgeAgain returns what does the rest of a Purge.
func (o Ready) purgeAgain(r running, op Operation, upTo int64, f Filter, told written, tell func(_, _ int64)) (func(context.Context) error, error) {
	if told.Delayed {
		return nil, errors.New("a purge of delayed messages cannot be resumed: run it again")
	}
	chosen, err := f.chosenReady()
	return func(ctx context.Context) error {
		var purged Purged
		err := o.purge(ctx, op.Queue, r.id, chosen, query.Span{UpTo: upTo}, int64(f.limit()), PurgeOptions{Looking: Looking{Progress: tell}}, &purged)
		_, err = o.conclude(ctx, r, purged.Ready, err)
		return err
	}, err
}

// PreviewPurge counts what Purge would remove, and changes nothing. A queue that is not there is a *NoQueueError.
func (o Ready) PreviewPurge(ctx context.Context, queue string, f Filter, opts PurgeOptions) (ready, delayed Count, err error) {
	if _, err := f.chosenToPurge(opts); err != nil {
		return ready, delayed, err
	}
	if ready, err = o.Count(ctx, queue, f, opts.Looking); err != nil || !opts.Delayed {
		return ready, delayed, err
	}
	f.Queue = queue
	n, more, _, err := Delayed{o.core}.Count(ctx, f, 0)
	var gone *NoDelayedError
	if errors.As(err, &gone) { // it is among the ready ones, or nowhere
		err = nil
	}
	return ready, Count{N: n, Estimated: more}, err
}

// chosenToPurge is what the filter of a purge chooses by.
func (f Filter) chosenToPurge(opts PurgeOptions) (query.Filter, error) {
	chosen, err := f.chosenReady()
	if err == nil && opts.Delayed && (len(chosen.Seqs) > 0 || f.Limit > 0) {
		err = errors.New("numbers and a limit are of ready messages; purge the delayed ones apart")
	}
	return chosen, err
}

func (o Ready) purge(ctx context.Context, queue string, id int64, f query.Filter, span query.Span, left int64, opts PurgeOptions, purged *Purged) error {
	if opts.Delayed { // first: meanwhile some may become ready
		last, err := o.store.LastDelayed(ctx, o.pool)
		if err != nil {
			return err
		}
		var looked int64
		b := wholeBatch(purgeDelayedRows)
		for place := (&query.DelayedKey{}); place != nil; {
			var n int64
			at := *place
			err := o.inOperation(ctx, id, func(tx pgx.Tx, _ query.OperationPlace) (_ int64, after query.Place, err error) {
				n, place, err = o.store.PurgeDelayed(ctx, tx, queue, f, at, last, b.rows, b.bytes)
				return n, after, err
			})
			if b.shrinkAfter(err) {
				place = &at
				continue
			}
			if err != nil {
				return err
			}
			purged.Delayed += n
			looked += int64(b.rows)
			opts.tell(looked, purged.Delayed)
		}
		// Delayed ones that became ready in the meantime are behind the place that the queue had then.
		if span.UpTo, err = o.store.LastReady(ctx, o.pool, queue); err != nil {
			return err
		}
	}
	return o.take(ctx, id, span, left, takeBatch, opts.Looking, func(tx pgx.Tx, span query.Span) (query.Taken, error) {
		return o.store.PurgeReady(ctx, tx, queue, f, span)
	}, func(t query.Taken) error {
		purged.Ready += t.N
		return nil
	})
}

// take takes messages out of a queue, in batches of most that are part of an operation, until the operation has taken limit or
// the span is through. then is called after the commit of each.
func (o Ready) take(ctx context.Context, id int64, span query.Span, limit, most int64, l Looking, one func(pgx.Tx, query.Span) (query.Taken, error), then func(query.Taken) error) error {
	var looked, taken int64
	for b := wholeBatch(int(most)); ; {
		var t query.Taken
		end := true
		err := o.inOperation(ctx, id, func(tx pgx.Tx, at query.OperationPlace) (_ int64, after query.Place, err error) {
			span.After = max(span.After, at.After.Seq)
			if limit <= at.Done {
				return 0, after, nil
			}
			span.Look, span.Want, span.Bytes = b.of(lookRows), int(min(int64(b.rows), limit-at.Done)), int(b.bytes)
			t, err = one(tx, span)
			end = !t.More && t.N < int64(span.Want) && t.Looked < int64(span.Look)
			return t.N, query.Place{Seq: t.Last}, err
		})
		if errors.Is(err, errEnded) {
			return nil
		}
		if b.shrinkAfter(err) {
			continue
		}
		if err != nil {
			return err
		}
		taken += t.N
		looked += t.Looked
		if err := then(t); err != nil {
			return err
		}
		l.tell(looked, taken)
		if end {
			return nil
		}
	}
}
