package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// taking is what a Purge or Move sets out to do.
type taking struct {
	running
	queue  string
	filter Filter       // its times absolute
	chosen query.Filter // of filter
	span   query.Span
	at     time.Time // when it began, by the clock of the database
	all    bool      // the filter chooses all
}

// prepareTake looks at what a filter chooses of a queue.
func (o Ready) prepareTake(ctx context.Context, kind, queue string, f Filter, opts ChangeOptions) (t taking, err error) {
	if f, err = opts.narrow(f); err != nil {
		return t, err
	}
	chosen, err := o.chooseReady(ctx, f)
	if err != nil {
		return t, err
	}
	t = taking{running: running{kind: kind, opts: opts}, queue: queue, all: f.ChoosesAll()}
	if t.span, err = o.span(ctx, queue, chosen); err != nil {
		return t, o.noQueue(ctx, queue, fmt.Errorf("look into queue %q: %w", queue, err))
	}
	t.span.UpTo = opts.UpTo.number(t.span.UpTo)
	if t.at, err = o.began(ctx, opts.UpTo); err != nil {
		return t, err
	}
	f.Since, f.Until = f.Since.from(t.at), f.Until.from(t.at)
	t.filter = f
	t.chosen, err = f.chosenReady()
	return t, err
}

// previewTake says what taking the messages that a filter chooses out of a queue would do.
func (o Ready) previewTake(ctx context.Context, kind, queue string, f Filter, opts ChangeOptions) (v Preview, err error) {
	t, err := o.prepareTake(ctx, "", queue, f, opts)
	if err != nil {
		return v, err
	}
	if v.Messages, err = o.countTake(ctx, t); err != nil {
		return v, err
	}
	v.Kind, v.UpTo = kind, Snapshot{Number: t.span.UpTo, At: t.at}
	if n := v.Messages.N; !v.Messages.Estimated {
		v.UpTo.Messages = &n
	}
	return v, nil
}

// checkTake returns a *ChangedSincePreviewError when there is more to be taken than the preview saw.
func (o Ready) checkTake(ctx context.Context, t taking) error {
	if t.opts.UpTo.Messages == nil {
		return nil
	}
	n, err := o.countTake(ctx, t)
	if err != nil {
		return err
	}
	return t.opts.UpTo.check(n.N, !n.Estimated)
}

// countTake counts what there is to be taken: what Queues.List counts where that is all, else it looks at every message.
func (o Ready) countTake(ctx context.Context, t taking) (Count, error) {
	limit := int64(t.filter.limit())
	if t.all && !t.opts.UpTo.taken() {
		q, err := Queues(o).Show(ctx, t.queue)
		if q.Ready.N >= limit {
			return Count{N: limit}, err
		}
		return q.Ready, err
	}
	return o.countSpan(ctx, t.queue, t.chosen, t.span, limit, Looking{Progress: t.opts.Progress})
}

// take takes messages out of a queue by batches of an operation, until it has taken the filter's limit or the span is through. one
// takes those of a span, and returns the channel to notify.
func (o Ready) take(ctx context.Context, t taking, one func(pgx.Tx, query.Span) (query.Taken, string, error)) (taken int64, err error) {
	limit := int64(t.filter.limit())
	return o.batches(ctx, t.running, takeBatch, func(tx pgx.Tx, at query.OperationPlace, most int64, b bound) (step, error) {
		span := t.span
		span.After = max(span.After, at.After.Seq)
		if limit <= at.Done {
			return step{end: true}, nil
		}
		span.Look, span.Want, span.Bytes = b.of(lookRows), int(min(most, limit-at.Done)), int(b.bytes)
		got, channel, err := one(tx, span)
		s := step{n: got.N, looked: got.Looked, after: query.Place{Seq: got.Last}, end: !got.More && got.N < int64(span.Want) && got.Looked < int64(span.Look)}
		if channel != "" {
			s.channels = []string{channel}
		}
		return s, err
	}, nil)
}
