package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// MoveOptions says how Move works. The zero value is good.
type MoveOptions struct {
	// Rate is how many messages are moved at most.
	// Default: 0, as fast as it goes. Unit: messages a second. Cost: the slower, the longer it takes.
	Rate float64
	Looking
}

// Move moves the ready messages of a queue that a filter chooses to another queue, the oldest first, and returns how many,
// also together with an error. Messages that arrive after it began are left alone, so are those that a receiver holds. A
// message keeps everything but its place: id, time, attempts, headers and body.
//
// It works in batches, each one statement: a message is in one of the queues, whatever happens. Two that run at once share
// the messages. One that was interrupted has moved some and can be called again.
func (o *Ops) Move(ctx context.Context, from, to string, f Filter, opts MoveOptions) (moved int64, err error) {
	if from == to {
		return 0, fmt.Errorf("messages of queue %q cannot be moved to itself", from)
	}
	chosen, err := f.chosenReady()
	if err != nil {
		return 0, err
	}
	chosen.Queue = ""
	if err := o.try(ctx, chosen); err != nil {
		return 0, err
	}
	if err := o.mustExist(ctx, to); err != nil {
		return 0, err
	}
	span, err := o.span(ctx, from, chosen)
	if err != nil {
		return 0, o.noQueue(ctx, from, fmt.Errorf("move from queue %q: %w", from, err))
	}
	f.Queue = from
	id, err := o.begin(ctx, kindMove, f, store.Operation{Queue: &to, UpTo: &span.UpTo})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	var channel string
	most := int64(takeBatch)
	if opts.Rate > 0 {
		most = max(1, min(most, int64(opts.Rate/4)))
	}
	err = o.take(ctx, id, span, int64(f.limit()), most, opts.Looking, func(tx pgx.Tx, span store.Span) (t store.Taken, err error) {
		t, channel, err = o.store.MoveReady(ctx, tx, from, to, chosen, span.After, span.UpTo, span.Look, span.Want)
		return t, err
	}, func(t store.Taken) error {
		moved += t.N
		if err := o.wake(ctx, channel); err != nil || opts.Rate <= 0 {
			return err
		}
		return wait(ctx, time.Until(began.Add(time.Duration(float64(moved)/opts.Rate*float64(time.Second)))))
	})
	if err != nil {
		err = o.noQueue(ctx, to, o.noQueue(ctx, from, fmt.Errorf("move from queue %q to %q: %w", from, to, err)))
	}
	return moved, errors.Join(err, o.end(ctx, id, err))
}

// wait waits for d, or for the end of ctx, which is an error.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
