package ops

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	// changeBatch is how many messages one transaction changes at most. Larger ones are hardly quicker, and hold their
	// messages for longer.
	changeBatch = 5000

	// scanBatch is how many messages one transaction looks at, where no index finds the chosen ones.
	scanBatch = 10_000
)

// change is a plan that is being performed.
type change struct {
	plan
	running
}

// perform does what is left of an operation, and writes down how it ended. It returns how many messages it changed, also
// together with an error.
func (o Failed) perform(ctx context.Context, c *change) (changed int64, err error) {
	var queues []string // that messages were to be moved to
	return o.core.perform(ctx, c.running, changeBatch, func(tx pgx.Tx, at query.OperationPlace, most int64, b bound) (step, error) {
		done, err := o.batch(ctx, tx, c, at, most, b)
		queues = done.queues
		return done.step, err
	}, func(err error) (bool, error) {
		if o.lostQueue(ctx, c, queues) {
			return true, nil
		}
		if c.to != "" {
			err = o.noQueue(ctx, c.to, err)
		}
		return false, err
	})
}

// batched is what a batch did.
type batched struct {
	step
	queues []string // that messages were moved to
}

// batch changes up to most messages, from where the operation has come to.
func (o Failed) batch(ctx context.Context, tx pgx.Tx, c *change, at query.OperationPlace, most int64, b bound) (done batched, err error) {
	var after, come *query.FailedKey // come: everything up to there has been looked at; nil: nothing was there
	if !at.After.At.IsZero() {
		after = &query.FailedKey{FailedAt: at.After.At, Seq: at.After.Seq}
	}
	left := c.limit - at.Done
	most = min(most, left)
	ahead := int(most)
	if c.chosen.Scans() {
		ahead = b.of(scanBatch)
	}
	var locked []query.LockedFailed
	if most > 0 {
		if come, done.end, err = o.store.LookAhead(ctx, tx, c.chosen, after, c.upTo, ahead, b.bytes); err != nil {
			return done, fmt.Errorf("look for messages: %w", err)
		}
	}
	if come != nil {
		if locked, err = o.store.LockFailed(ctx, tx, c.chosen, c.except, after, *come, c.upTo, most); err != nil {
			return done, fmt.Errorf("lock messages: %w", err)
		}
	}
	if n := int64(len(locked)); n == most { // there may be more before the place that it looked ahead to
		done.end = n == left
		if n > 0 {
			come = &query.FailedKey{FailedAt: locked[n-1].FailedAt, Seq: locked[n-1].Seq}
		}
	}
	done.after = place(come)
	done.at, done.upTo = done.after.Seq, c.upTo
	return done, o.apply(ctx, tx, c, locked, &done)
}

// apply changes locked messages, in one round trip.
func (o Failed) apply(ctx context.Context, tx pgx.Tx, c *change, locked []query.LockedFailed, done *batched) error {
	if len(locked) == 0 {
		return nil
	}
	changes := &pgx.Batch{}
	count := func(n int64) { done.n += n }
	seqs := make([]int64, len(locked))
	for i, m := range locked {
		seqs[i] = m.Seq
	}
	slices.Sort(seqs)
	switch c.plan.kind {
	case kindReplay:
		if c.to != "" {
			for i := range locked {
				locked[i].Queue = c.to
			}
		}
		slices.SortFunc(locked, func(a, b query.LockedFailed) int {
			return cmp.Or(cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.Seq, b.Seq))
		})
		for from := 0; from < len(locked); {
			queue, until := locked[from].Queue, from
			for ; until < len(locked) && locked[until].Queue == queue; until++ {
				seqs[until] = locked[until].Seq
			}
			done.queues = append(done.queues, queue)
			o.store.ReplayFailed(changes, queue, seqs[from:until], c.id, c.plan.kind, func(n int64, channel string) {
				count(n)
				if channel != "" {
					done.channels = append(done.channels, channel)
				}
			})
			from = until
		}
	case kindArchive, kindUnarchive:
		o.store.ArchiveFailed(changes, c.plan.kind == kindArchive, seqs, c.id, c.plan.kind, count)
	case kindDelete:
		o.store.DeleteFailed(changes, seqs, c.id, c.plan.kind, count)
	}
	if err := tx.SendBatch(ctx, changes).Close(); err != nil {
		return fmt.Errorf("%s messages: %w", c.plan.kind, err)
	}
	return nil
}

// lostQueue reports whether a batch failed because a queue was dropped in the meantime. From then on its messages are left out.
func (o Failed) lostQueue(ctx context.Context, c *change, queues []string) bool {
	lost := false
	for _, queue := range queues {
		if exists, err := o.store.QueueExists(ctx, o.pool, queue); err == nil && !exists && c.to == "" {
			c.except = append(c.except, queue)
			lost = true
		}
	}
	return lost
}
