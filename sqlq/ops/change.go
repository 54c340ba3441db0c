package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	// changeBatch is how many messages one transaction changes at most. Larger ones are hardly quicker, and hold their
	// messages for longer.
	changeBatch = 5000

	// scanBatch is how many messages one transaction looks at, where no index finds the chosen ones.
	scanBatch = 10_000

	// rateBatches is into how many batches a second a rate is divided.
	rateBatches = 20
)

// change is a plan that is being performed.
type change struct {
	plan
	running
	rate     int // messages a second; 0: any
	progress func(Progress)
}

// perform does what is left of an operation, and writes down how it ended. It returns how many messages it changed, also
// together with an error.
func (o Failed) perform(ctx context.Context, c *change) (changed int64, err error) {
	changed, err = o.batches(ctx, c)
	return o.conclude(ctx, c.running, changed, err)
}

// batches changes batch after batch until there are no more, and returns how many messages it has changed.
func (o Failed) batches(ctx context.Context, c *change) (changed int64, err error) {
	pace, b := pacer{rate: c.rate}, wholeBatch(changeBatch)
	for {
		if err := pace.wait(ctx); err != nil {
			return changed, err
		}
		done, err := o.batch(ctx, c, min(pace.most(), int64(b.rows)), b)
		if errors.Is(err, errEnded) { // by somebody else who went on with it
			return changed, nil
		}
		if b.shrinkAfter(err) {
			continue
		}
		if err != nil && o.lostQueue(ctx, c, done) {
			continue
		}
		if err != nil && c.to != "" {
			err = o.noQueue(ctx, c.to, err)
		}
		if err != nil {
			return changed, err
		}
		pace.took(done.n)
		changed += done.n
		for _, channel := range done.channels {
			if err := o.wake(ctx, channel); err != nil {
				return changed, err
			}
		}
		if c.progress != nil {
			c.progress(Progress{Operation: c.id, Kind: c.plan.kind, Done: done.total, Wanted: c.wanted, At: done.number(), UpTo: c.upTo})
		}
		if done.end {
			return changed, nil
		}
	}
}

// batched is what a batch did.
type batched struct {
	n        int64
	total    int64            // of the operation
	at       *query.FailedKey // everything up to there has been looked at; nil: nothing was there
	end      bool             // it was the last
	channels []string
	queues   []string // that messages were moved to
}

func (b batched) number() int64 { return place(b.at).Seq }

// batch changes up to most messages in one transaction, from where the operation has come to.
func (o Failed) batch(ctx context.Context, c *change, most int64, b bound) (done batched, err error) {
	err = o.inOperation(ctx, c.id, func(tx pgx.Tx, at query.OperationPlace) (_ int64, _ query.Place, err error) {
		var after *query.FailedKey
		if !at.After.At.IsZero() {
			after = &query.FailedKey{FailedAt: at.After.At, Seq: at.After.Seq}
		}
		left := c.limit - at.Done
		most := min(most, left)
		ahead := int(most)
		if c.chosen.Scans() {
			ahead = b.of(scanBatch)
		}
		var locked []query.LockedFailed
		if most > 0 {
			if done.at, done.end, err = o.store.LookAhead(ctx, tx, c.chosen, after, c.upTo, ahead, b.bytes); err != nil {
				return 0, query.Place{}, fmt.Errorf("look for messages: %w", err)
			}
		}
		if done.at != nil {
			if locked, err = o.store.LockFailed(ctx, tx, c.chosen, c.except, after, *done.at, c.upTo, most); err != nil {
				return 0, query.Place{}, fmt.Errorf("lock messages: %w", err)
			}
		}
		if n := int64(len(locked)); n == most { // there may be more before the place that it looked ahead to
			done.end = n == left
			if n > 0 {
				done.at = &query.FailedKey{FailedAt: locked[n-1].FailedAt, Seq: locked[n-1].Seq}
			}
		}
		if err := o.apply(ctx, tx, c, locked, &done); err != nil {
			return 0, query.Place{}, err
		}
		done.total = at.Done + done.n
		return done.n, place(done.at), nil
	})
	if err != nil {
		done.n, done.channels = 0, nil
	}
	return done, err
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

// lostQueue says whether a batch failed because a queue was dropped meanwhile. From then on its messages are left out.
func (o Failed) lostQueue(ctx context.Context, c *change, failed batched) bool {
	lost := false
	for _, queue := range failed.queues {
		if exists, err := o.store.QueueExists(ctx, o.pool, queue); err == nil && !exists && c.to == "" {
			c.except = append(c.except, queue)
			lost = true
		}
	}
	return lost
}

// pacer spreads messages evenly over time. After a delay it does not catch up: that would be a burst.
type pacer struct {
	rate  int       // a second; 0: as fast as it goes
	next  time.Time // when more may be taken
	began time.Time // when more were
}

// most returns how many messages may be taken at once.
func (p *pacer) most() int64 {
	if p.rate == 0 {
		return changeBatch
	}
	return int64(min(max(1, p.rate/rateBatches), changeBatch))
}

// wait returns when more may be taken.
func (p *pacer) wait(ctx context.Context) error {
	err := wait(ctx, time.Until(p.next))
	p.began = time.Now()
	return err
}

// took says that n messages were taken.
func (p *pacer) took(n int64) {
	if p.rate == 0 {
		return
	}
	lasts := time.Duration(n) * time.Second / time.Duration(p.rate)
	if p.began.Sub(p.next) > lasts { // else it was a little late, which the next batch makes good
		p.next = p.began
	}
	p.next = p.next.Add(lasts)
}
