package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
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
// the messages. One that was interrupted returns an *InterruptedError, and Operations.Resume does the rest.
func (o Ready) Move(ctx context.Context, from, to string, f Filter, opts MoveOptions) (moved int64, err error) {
	if from == to {
		return 0, fmt.Errorf("messages of queue %q cannot be moved to itself", from)
	}
	chosen, err := o.chooseReady(ctx, f)
	if err != nil {
		return 0, err
	}
	if err := o.mustExist(ctx, to); err != nil {
		return 0, err
	}
	span, err := o.span(ctx, from, chosen)
	if err != nil {
		return 0, o.noQueue(ctx, from, fmt.Errorf("move from queue %q: %w", from, err))
	}
	if f, err = o.absolute(ctx, f); err != nil {
		return 0, err
	}
	f.Queue = from
	m := moving{running: running{kind: kindMove}, from: from, to: to, filter: f, span: span, rate: opts.Rate, Looking: opts.Looking}
	if m.id, err = o.begin(ctx, kindMove, write(f, opts.Rate), query.Operation{Queue: &to, UpTo: &span.UpTo}); err != nil {
		return 0, err
	}
	return o.move(ctx, m)
}

// moveAgain returns what does the rest of a Move.
func (o Ready) moveAgain(r running, op Operation, upTo int64, f Filter, told written, tell func(_, _ int64)) func(context.Context) error {
	m := moving{running: r, from: f.Queue, to: op.Queue, filter: f, span: query.Span{UpTo: upTo}, rate: told.Rate, Looking: Looking{Progress: tell}}
	return func(ctx context.Context) error {
		_, err := o.move(ctx, m)
		return err
	}
}

// moving is a Move that is being performed.
type moving struct {
	running
	from, to string
	filter   Filter // its times absolute
	span     query.Span
	rate     float64
	Looking
}

func (o Ready) move(ctx context.Context, m moving) (moved int64, err error) {
	chosen, err := m.filter.chosenReady()
	if err == nil {
		began := time.Now()
		var channel string
		most := int64(takeBatch)
		if m.rate > 0 {
			most = max(1, min(most, int64(m.rate/4)))
		}
		err = o.take(ctx, m.id, m.span, int64(m.filter.limit()), most, m.Looking, func(tx pgx.Tx, span query.Span) (t query.Taken, err error) {
			t, channel, err = o.store.MoveReady(ctx, tx, m.from, m.to, chosen, span)
			return t, err
		}, func(t query.Taken) error {
			moved += t.N
			if err := o.wake(ctx, channel); err != nil || m.rate <= 0 {
				return err
			}
			return wait(ctx, time.Until(began.Add(time.Duration(float64(moved)/m.rate*float64(time.Second)))))
		})
	}
	if err != nil {
		err = o.noQueue(ctx, m.to, o.noQueue(ctx, m.from, fmt.Errorf("move from queue %q to %q: %w", m.from, m.to, err)))
	}
	return o.conclude(ctx, m.running, moved, err)
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
