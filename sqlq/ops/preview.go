package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	previewSample = 5                      // messages shown
	countWithin   = 150 * time.Millisecond // then the number is estimated
	sampleWithin  = 50 * time.Millisecond  // then some are shown that are not the first

	countPinnedWithin = 5 * time.Second // then messages that a preview could count cannot be counted again
)

// Preview is what a change of messages would do, had it begun at this moment. Nothing is changed, locked or written down;
// messages may come, or be changed by others, before the change itself begins: with UpTo it leaves alone what came later.
type Preview struct {
	Kind     string          // what it would do, one of OperationKinds
	Messages Count           // how many it would change; of a purge: of those that are ready
	Delayed  Count           // of a purge with PurgeOptions.Delayed: how many delayed messages it would remove
	Sample   []FailedMessage // of failed messages: the first of them, or some where looking for the first would take too long
	Gone     []string        // queues that are gone, of which messages would stay
	Unnamed  *NoFailedError  // names that are not there; nil: all are
	UpTo     Snapshot        // for ChangeOptions.UpTo
}

// MarshalJSON writes the preview as sqlq error replay --dry-run -o json does; of a purge of delayed messages, too, with their number.
func (v Preview) MarshalJSON() ([]byte, error) {
	var missing []string
	if v.Unnamed != nil {
		missing = v.Unnamed.Missing
	}
	return encode(struct {
		DryRun    bool            `json:"dry_run"`
		Kind      string          `json:"would"`
		Messages  int64           `json:"messages"`
		Estimated bool            `json:"estimated"`
		Delayed   int64           `json:"delayed_messages,omitempty"`
		Gone      []string        `json:"gone_queues,omitempty"`
		Missing   []string        `json:"missing,omitempty"`
		Sample    []FailedMessage `json:"sample"`
	}{true, v.Kind, v.Messages.N, v.Messages.Estimated || v.Delayed.Estimated, v.Delayed.N, v.Gone, missing, listed(v.Sample)})
}

// PreviewReplay says what Replay would do. It takes some hundred milliseconds at most, however many messages there are.
func (o Failed) PreviewReplay(ctx context.Context, f Filter, opts ReplayOptions) (Preview, error) {
	return o.preview(ctx, kindReplay, f, opts)
}

// PreviewArchive says what Archive would do, like PreviewReplay.
func (o Failed) PreviewArchive(ctx context.Context, f Filter, opts ChangeOptions) (Preview, error) {
	return o.preview(ctx, kindArchive, f, ReplayOptions{ChangeOptions: opts})
}

// PreviewUnarchive says what Unarchive would do, like PreviewReplay.
func (o Failed) PreviewUnarchive(ctx context.Context, f Filter, opts ChangeOptions) (Preview, error) {
	return o.preview(ctx, kindUnarchive, f, ReplayOptions{ChangeOptions: opts})
}

// PreviewDelete says what Delete would do, like PreviewReplay.
func (o Failed) PreviewDelete(ctx context.Context, f Filter, opts ChangeOptions) (Preview, error) {
	return o.preview(ctx, kindDelete, f, ReplayOptions{ChangeOptions: opts})
}

func (o Failed) preview(ctx context.Context, kind string, f Filter, opts ReplayOptions) (v Preview, err error) {
	p, err := o.plan(ctx, kind, f, opts)
	if err != nil {
		return v, err
	}
	v.Kind = kind
	v.Unnamed, _ = p.unnamed.(*NoFailedError)
	n, sure, err := o.countPlan(ctx, p, countWithin)
	if err != nil {
		return v, err
	}
	v.Messages, v.UpTo = Count{N: n, Estimated: !sure}, Snapshot{Number: p.upTo, At: p.at}
	if sure {
		v.UpTo.Messages = &n
	}
	if v.Gone = p.except; sure {
		gone, err := o.goneOf(ctx, p)
		if err != nil {
			return v, err
		}
		v.Gone = gone
	}
	if sure && n == 0 {
		return v, nil
	}
	var sample []query.Failed
	look := func(db store.DBTX, sampled bool) error {
		sample, err = o.store.PlannedFailed(ctx, db, p.chosen, p.except, p.after, p.upTo, previewSample, sampled)
		return err
	}
	found, err := o.within(ctx, sampleWithin, func(tx pgx.Tx) error {
		if err := o.skipOlder(ctx, tx, &p); err != nil {
			return err
		}
		return look(tx, false)
	})
	if err == nil && !found {
		err = look(o.pool, true)
	}
	if err != nil {
		return v, fmt.Errorf("look for the first messages: %w", err)
	}
	for _, m := range sample[:min(len(sample), int(min(p.limit, previewSample)))] {
		v.Sample = append(v.Sample, failedMessage(m))
	}
	return v, nil
}

// countPlan returns how many messages a plan chooses: sure, or an estimate where counting takes too long.
func (o Failed) countPlan(ctx context.Context, p plan, within time.Duration) (n int64, sure bool, err error) {
	expected, err := o.store.ExpectFailed(ctx, o.pool, p.chosen)
	if err == nil && expected <= countedAtMost {
		sure, err = o.within(ctx, within, func(tx pgx.Tx) error {
			n, err = o.store.CountPlanned(ctx, tx, p.chosen, p.except, p.upTo)
			return err
		})
	}
	if err == nil && !sure {
		n, err = o.store.EstimatePlanned(ctx, o.pool, p.chosen, p.except, p.upTo)
	}
	if err != nil {
		return 0, false, fmt.Errorf("count the messages: %w", err)
	}
	return min(n, p.limit), sure, nil
}
