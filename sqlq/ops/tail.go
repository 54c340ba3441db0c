package ops

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

const (
	tailEvery = 200 * time.Millisecond
	tailRows  = 1000 // that one look shows at most; more make the next come at once

	// A message whose number is passed over may be part of a transaction that has not committed: it is looked for so long, the
	// newest so many of them.
	tailGapTime = 10 * time.Second
	tailGaps    = 5000
)

// Tail calls do for each message that arrives in a queue and that a filter chooses, without taking it, in the order of their
// numbers as far as they were there together. It looks every 200 ms: a message that is handled faster than that is not seen,
// nor one whose transaction takes longer than ten seconds to commit while others overtake it. It ends with do's first
// error, after f.Limit messages with nil, or with ctx's error.
func (o Ready) Tail(ctx context.Context, queue string, f Filter, do func(Message) error) error {
	chosen, err := o.chooseReady(ctx, f)
	if err != nil {
		return err
	}
	failed := func(err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return o.noQueue(ctx, queue, fmt.Errorf("follow queue %q: %w", queue, err))
	}
	last, err := o.store.LastReady(ctx, o.pool, queue)
	if err != nil {
		return failed(err)
	}
	// Those that are here were here before, and fit no filter now; the last numbers that are not may be of messages that are
	// being sent.
	before := max(0, last-tailRows)
	here, err := o.store.ReadTail(ctx, o.pool, queue, query.Filter{Seqs: []int64{0}}, nil, before, tailRows)
	if err != nil {
		return failed(err)
	}
	gaps := gaps{}
	for _, m := range here {
		if m.Seq <= last {
			gaps.passed(before, m.Seq)
			before = m.Seq
		}
	}
	gaps.passed(before, last+1)
	for left := f.limit(); ; {
		found, err := o.store.ReadTail(ctx, o.pool, queue, chosen, gaps.open(), last, tailRows)
		if err != nil {
			return failed(err)
		}
		for _, m := range found {
			if m.Seq > last {
				gaps.passed(last, m.Seq)
				last = m.Seq
			} else {
				gaps.seen(m.Seq)
			}
			if !m.Fits {
				continue
			}
			if err := do(message(m.Peeked)); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		if len(found) >= tailRows {
			continue
		}
		if err := wait(ctx, tailEvery); err != nil {
			return err
		}
	}
}

// gaps are numbers that were passed over, in their order, each with the time when it was.
type gaps []gap

type gap struct {
	seq int64
	at  time.Time
}

// passed notes the numbers between two that were seen one after the other.
func (g *gaps) passed(from, to int64) {
	now := time.Now()
	for seq := max(from+1, to-tailGaps); seq < to; seq++ {
		*g = append(*g, gap{seq, now})
	}
}

func (g *gaps) seen(seq int64) {
	*g = slices.DeleteFunc(*g, func(gap gap) bool { return gap.seq == seq })
}

// open returns the numbers that are still looked for, and forgets the others.
func (g *gaps) open() []int64 {
	since := time.Now().Add(-tailGapTime)
	*g = slices.DeleteFunc((*g)[max(0, len(*g)-tailGaps):], func(gap gap) bool { return gap.at.Before(since) })
	seqs := make([]int64, len(*g))
	for i, gap := range *g {
		seqs[i] = gap.seq
	}
	return seqs
}
