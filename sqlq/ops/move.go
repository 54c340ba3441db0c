package ops

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Move moves the ready messages of a queue that a filter chooses to another queue, the oldest first, and returns how many,
// also together with an error. Messages that arrive after it began are left alone, so are those that a receiver holds. A
// message keeps everything but its place: id, time, attempts, headers and body.
//
// It works in batches, each one statement: a message is in one of the queues, whatever happens. Two that run at once share
// the messages. One that was interrupted returns an *InterruptedError, and Operations.Resume does the rest.
func (o Ready) Move(ctx context.Context, from, to string, f Filter, opts ChangeOptions) (moved int64, err error) {
	if from == to {
		return 0, fmt.Errorf("messages of queue %q cannot be moved to itself", from)
	}
	take, err := o.prepareTake(ctx, kindMove, from, f, opts)
	if err != nil {
		return 0, err
	}
	if err := o.mustExist(ctx, to); err != nil {
		return 0, err
	}
	if err := o.checkTake(ctx, take); err != nil {
		return 0, err
	}
	take.filter.Queue = from
	if err := o.start(ctx, &take.running, write(take.filter, opts.Rate), query.Operation{Queue: &to, UpTo: &take.span.UpTo}, query.Place{}); err != nil {
		return 0, err
	}
	return o.move(ctx, take, to)
}

// PreviewMove counts what Move would move, and changes nothing. A queue that is not there is a *NoQueueError.
func (o Ready) PreviewMove(ctx context.Context, from, to string, f Filter, opts ChangeOptions) (Preview, error) {
	if from == to {
		return Preview{}, fmt.Errorf("messages of queue %q cannot be moved to itself", from)
	}
	if err := o.mustExist(ctx, to); err != nil {
		return Preview{}, err
	}
	return o.previewTake(ctx, kindMove, from, f, opts)
}

// moveAgain returns what does the rest of a Move.
func (o Ready) moveAgain(r running, op Operation, upTo int64, f Filter) (func(context.Context) error, error) {
	chosen, err := f.chosenReady()
	return func(ctx context.Context) error {
		_, err := o.move(ctx, taking{running: r, queue: f.Queue, filter: f, chosen: chosen, span: query.Span{UpTo: upTo}}, op.Queue)
		return err
	}, err
}

func (o Ready) move(ctx context.Context, t taking, to string) (moved int64, err error) {
	moved, err = o.take(ctx, t, func(tx pgx.Tx, span query.Span) (query.Taken, string, error) {
		return o.store.MoveReady(ctx, tx, t.queue, to, t.chosen, span)
	})
	if err != nil {
		err = o.noQueue(ctx, to, o.noQueue(ctx, t.queue, fmt.Errorf("move from queue %q to %q: %w", t.queue, to, err)))
	}
	return o.conclude(ctx, t.running, moved, err)
}
