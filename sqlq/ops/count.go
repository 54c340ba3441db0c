package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// CountLimit is the number up to which messages are counted one by one, in databases with few queues; with many whose
// backlogs are long it is lower. Above it a count is estimated from a sample of the table, so that it costs a few
// milliseconds whatever the backlog.
const CountLimit = 10_000

// How long a count may take. One that takes longer, because vacuum cannot remove the dead entries in front of the
// messages, is given up and estimated.
const (
	countAllWithin   = 250 * time.Millisecond // of several queues in one statement
	countOneWithin   = 100 * time.Millisecond
	countAloneWithin = 400 * time.Millisecond // of all those together that are counted one by one
	countTogether    = 50                     // queues in one statement
)

// What one list may read, of each kind of message and in all queues together.
const (
	countRows    = 20_000 // shared by the queues, where there are more than countFew
	countFew     = 4      // so many queues are counted up to CountLimit each
	samplePages  = 1_000
	sampleNewest = 10_000
)

// share is what each of n gets of what there is, within bounds.
func share(all, n, least, most int) int { return max(least, min(most, all/max(n, 1))) }

// Count is a number of messages.
type Count struct {
	N         int64 `json:"count"`     // how many
	Estimated bool  `json:"estimated"` // N comes from a sample of the table
}

// count makes all counts of queues, in their order.
func (o Queues) count(ctx context.Context, states []query.QueueState) ([]Queue, error) {
	queues, at, low := make([]Queue, len(states)), map[string]*Queue{}, map[string]int64{}
	names := make([]string, len(states))
	for i, s := range states {
		queues[i] = Queue{Name: s.Name, In: s.In, Out: finite(s.Out), Instances: s.Instances, PausedAt: s.PausedAt, PausedBy: s.PausedBy}
		names[i], at[s.Name], low[s.Name] = s.Name, &queues[i], s.Low
	}
	// All at once, as far as the pool has connections.
	var ready, failed map[string]queueCount
	var delayed, leased map[string]int64
	var estimated, leasedEstimated bool
	var wait sync.WaitGroup
	var errs [4]error
	wait.Go(func() {
		ready, errs[0] = o.countEach(ctx, names, func(ctx context.Context, db store.DBTX, queues []string, limit int64) ([]query.Counted, error) {
			return o.store.CountReady(ctx, db, queues, low, limit)
		}, o.estimateReady)
	})
	wait.Go(func() {
		failed, errs[1] = o.countEach(ctx, names, o.store.CountFailed, func(ctx context.Context, _ []string) (counted []query.Counted, err error) {
			_, err = o.within(ctx, 0, func(tx pgx.Tx) (err error) {
				counted, err = o.store.EstimateFailed(ctx, tx)
				return err
			})
			return counted, err
		})
	})
	wait.Go(func() {
		delayed, estimated, errs[2] = o.countTable(ctx, o.store.CountDelayed, o.store.EstimateDelayed)
		if errs[2] == nil {
			leased, leasedEstimated, errs[3] = o.countTable(ctx, o.store.CountLeased, o.store.EstimateLeased)
		}
	})
	wait.Wait()
	for i, what := range []string{"ready", "failed", "delayed", "leased"} {
		if errs[i] != nil {
			return nil, fmt.Errorf("count %s messages: %w", what, errs[i])
		}
	}
	for _, c := range ready {
		q := at[c.Queue]
		q.Ready, q.OldestAt, q.OldestAge = c.Count, c.OldestAt, c.OldestAge
	}
	for _, c := range failed {
		at[c.Queue].Failed = c.Count
	}
	for _, q := range at {
		q.Delayed = Count{N: delayed[q.Name], Estimated: estimated}
		q.Leased = Count{N: leased[q.Name], Estimated: leasedEstimated}
	}
	return queues, nil
}

// queueCount is the count of one queue.
type queueCount struct {
	Queue string
	Count
	OldestAt  *time.Time
	OldestAge *time.Duration
}

// countEach counts for each queue apart: together in few statements, one by one where those take too long, and by an
// estimate where that takes too long as well, or there are too many. What reaches its queue's share of the rows is counted
// on only if few do.
func (o Queues) countEach(ctx context.Context, names []string,
	exact func(ctx context.Context, db store.DBTX, queues []string, limit int64) ([]query.Counted, error),
	estimate func(ctx context.Context, queues []string) ([]query.Counted, error),
) (map[string]queueCount, error) {
	counts := map[string]queueCount{}
	var more, toEstimate []string // more have reached the limit
	count := func(queues []string, limit int64, within time.Duration) (bool, error) {
		return o.within(ctx, within, func(tx pgx.Tx) error {
			counted, err := exact(ctx, tx, queues, limit+1)
			for _, c := range counted {
				counts[c.Queue] = queueCount{Queue: c.Queue, Count: Count{N: c.N}, OldestAt: c.OldestAt, OldestAge: c.OldestAge}
				if c.N > limit {
					more = append(more, c.Queue)
				}
			}
			return err
		})
	}
	aloneUntil := time.Time{}
	pass := func(names []string, limit int64) error {
		for together := range slices.Chunk(names, countTogether) {
			ok, err := count(together, limit, countAllWithin)
			if err != nil {
				return err
			}
			if !ok && aloneUntil.IsZero() {
				aloneUntil = time.Now().Add(countAloneWithin)
			}
			for _, name := range together {
				if ok {
					break
				}
				alone := false
				if time.Now().Before(aloneUntil) {
					if alone, err = count([]string{name}, limit, countOneWithin); err != nil {
						return err
					}
				}
				if !alone {
					toEstimate = append(toEstimate, name)
				}
			}
		}
		return nil
	}
	limit := int64(CountLimit)
	if len(names) > countFew {
		limit = int64(share(countRows, len(names), 100, CountLimit))
	}
	if err := pass(names, limit); err != nil {
		return nil, err
	}
	if again := more; limit < CountLimit && len(again) <= countFew {
		more = nil
		if err := pass(again, CountLimit); err != nil {
			return nil, err
		}
	}
	toEstimate = append(toEstimate, more...)
	if toEstimate == nil {
		return counts, nil
	}
	estimated, err := estimate(ctx, toEstimate)
	if err != nil {
		return nil, err
	}
	estimates := map[string]query.Counted{} // none for a queue of which nothing was in the sample
	for _, e := range estimated {
		estimates[e.Queue] = e
	}
	for _, name := range toEstimate {
		c, e := counts[name], estimates[name]
		c.Queue, c.Count = name, Count{N: max(e.N, c.N), Estimated: true}
		if c.OldestAt == nil {
			c.OldestAt, c.OldestAge = e.OldestAt, e.OldestAge
		}
		counts[name] = c
	}
	return counts, nil
}

// estimateReady estimates the ready messages of queues: in several statements at once, as far as the pool has connections, for
// with many queues it is the server's planner that takes the time.
func (o Queues) estimateReady(ctx context.Context, queues []string) (estimated []query.Counted, err error) {
	n := len(queues)
	parts := make([][]query.Counted, (n+countTogether-1)/countTogether)
	errs := make([]error, len(parts))
	var wait sync.WaitGroup
	for i := range parts {
		wait.Go(func() {
			_, errs[i] = o.within(ctx, 0, func(tx pgx.Tx) (err error) {
				parts[i], err = o.store.EstimateReady(ctx, tx, queues[i*countTogether:min(n, (i+1)*countTogether)],
					share(samplePages, n, 4, 300), share(sampleNewest, n, 50, CountLimit))
				return err
			})
		})
	}
	wait.Wait()
	return slices.Concat(parts...), errors.Join(errs...)
}

// countTable counts by queue in a table that all queues share, and estimates where it holds too many messages.
func (o Queues) countTable(ctx context.Context,
	exact func(ctx context.Context, db store.DBTX, limit int64) ([]query.Counted, error),
	estimate func(ctx context.Context, db store.DBTX) ([]query.Counted, error),
) (counts map[string]int64, estimated bool, err error) {
	var counted []query.Counted
	ok, err := o.within(ctx, countOneWithin, func(tx pgx.Tx) error {
		counted, err = exact(ctx, tx, CountLimit+1)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	var total int64
	for _, c := range counted {
		total += c.N
	}
	if !ok || total > CountLimit {
		estimated = true
		if _, err := o.within(ctx, 0, func(tx pgx.Tx) (err error) {
			counted, err = estimate(ctx, tx)
			return err
		}); err != nil {
			return nil, false, err
		}
	}
	counts = map[string]int64{}
	for _, c := range counted {
		counts[c.Queue] = c.N
	}
	return counts, estimated, nil
}
