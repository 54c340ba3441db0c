package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Due says when delayed messages are to be due: one of its fields. The zero value is now. A time that has passed is now,
// too.
type Due struct {
	At time.Time     // this time
	In time.Duration // from now, by the clock of the database
	By time.Duration // so much later than they were to be; earlier if it is negative
}

func (d Due) check() error {
	if (!d.At.IsZero() && d.In != 0) || (!d.At.IsZero() && d.By != 0) || (d.In != 0 && d.By != 0) {
		return errors.New("a time, a delay from now and a shift exclude one another: give one of them")
	}
	if d.In < 0 {
		return fmt.Errorf("a delay of %s ends in the past: it is counted from now, from 0 on", d.In)
	}
	return nil
}

// DelayedOptions says how Cancel and Reschedule work. The zero value is good.
type DelayedOptions struct {
	// Progress is called after each batch with the number of messages that were looked at and changed so far.
	// Default: nobody is told. Cost: its time.
	Progress func(looked, changed int64)
}

// ErrDelayedFilterEmpty is returned by Cancel and Reschedule for a filter that chooses every delayed message and does not
// say All.
var ErrDelayedFilterEmpty = errors.New("the filter chooses every delayed message: name a queue, a type or messages, or say that all are meant")

// Cancel removes the delayed messages that a filter chooses, for good, and returns how many, also together with an error.
// Messages that come to be delayed after it began stay, and so do those that move to their queues at this moment. It works
// in batches, each a transaction: one that was interrupted returns an *InterruptedError, and Operations.Resume does the rest.
// Each message is in the history, the whole in the table of operations.
func (o Delayed) Cancel(ctx context.Context, f Filter, opts DelayedOptions) (cancelled int64, err error) {
	return o.changeDelayed(ctx, kindCancel, f, query.Due{}, opts)
}

// Reschedule gives the delayed messages that a filter chooses another due time, never before now, and returns how many have
// one, also together with an error; those that are due then anyway are not counted. It works in batches like Cancel, and
// wakes those who move messages that are due.
func (o Delayed) Reschedule(ctx context.Context, f Filter, to Due, opts DelayedOptions) (changed int64, err error) {
	if err := to.check(); err != nil {
		return 0, err
	}
	due := query.Due{At: to.At.Truncate(time.Microsecond), By: to.By}
	if due.At.IsZero() && due.By == 0 {
		if due.At, err = o.store.Clock(ctx, o.pool); err != nil {
			return 0, fmt.Errorf("read the clock of the database: %w", err)
		}
		due.At = due.At.Add(to.In)
	}
	return o.changeDelayed(ctx, kindReschedule, f, due, opts)
}

// changeDelayed writes a Cancel or Reschedule down and performs it.
func (o Delayed) changeDelayed(ctx context.Context, kind string, f Filter, due query.Due, opts DelayedOptions) (changed int64, err error) {
	if f, err = o.absolute(ctx, f); err != nil {
		return 0, err
	}
	work, err := o.prepareDelayed(ctx, f)
	if err != nil || work.none {
		return 0, errors.Join(err, work.unnamed)
	}
	told := write(f, 0)
	told.First, told.Last = writePlace(work.lo), writePlace(work.hi)
	if kind == kindReschedule && due.By != 0 {
		told.By = due.By.String()
	} else if kind == kindReschedule {
		told.Due = &due.At
	}
	work.running, work.due = running{kind: kind}, due
	if work.id, err = o.begin(ctx, kind, told, query.Operation{UpTo: &work.upTo}); err != nil {
		return 0, err
	}
	changed, err = o.performDelayed(ctx, work, opts.Progress)
	return changed, errors.Join(err, work.unnamed)
}

// delayedAgain returns what does the rest of a Cancel or Reschedule.
func (o Delayed) delayedAgain(r running, upTo int64, f Filter, told written, tell func(_, _ int64)) (goOn func(context.Context) error, err error) {
	work := delayedWork{running: r, upTo: upTo, lo: told.First.read(), hi: told.Last.read()}
	if work.filter, err = f.chosenDelayed(); err != nil {
		return nil, err
	}
	switch {
	case r.kind == kindCancel:
	case told.Due != nil:
		work.due.At = *told.Due
	default:
		if work.due.By, err = time.ParseDuration(told.By); err != nil {
			return nil, fmt.Errorf("it does not say by how much: %w", err)
		}
	}
	return func(ctx context.Context) error {
		_, err := o.performDelayed(ctx, work, tell)
		return err
	}, nil
}

func writePlace(k *query.DelayedKey) *writtenPlace {
	if k == nil {
		return nil
	}
	return &writtenPlace{At: k.DueAt, Number: k.Seq}
}

func (p *writtenPlace) read() *query.DelayedKey {
	if p == nil {
		return nil
	}
	return &query.DelayedKey{DueAt: p.At, Seq: p.Number}
}

// performDelayed does what is left of a Cancel or Reschedule, and writes down how it ended. It returns how many messages it
// changed.
func (o Delayed) performDelayed(ctx context.Context, work delayedWork, progress func(looked, changed int64)) (changed int64, err error) {
	b := wholeBatch(delayedBatch)
	for looked, end := int64(0), false; !end && err == nil; {
		if err = ctx.Err(); err != nil {
			break
		}
		var c query.DelayedChange
		c, err = o.changeDelayedBatch(ctx, work, b)
		if errors.Is(err, errEnded) {
			err = nil
			break
		}
		if b.shrinkAfter(err) {
			err = nil
			continue
		}
		if err != nil {
			err = fmt.Errorf("%s delayed messages: %w", work.kind, err)
			break
		}
		changed += c.N
		looked += int64(b.rows)
		err, end = o.wake(ctx, c.Channel), c.Next == nil
		if progress != nil {
			progress(looked, changed)
		}
	}
	return o.conclude(ctx, work.running, changed, err)
}

// changeDelayedBatch runs one batch, from where the operation has come to. It is short, and is not interrupted half-way: then
// nobody would know whether it was committed.
func (o Delayed) changeDelayedBatch(ctx context.Context, work delayedWork, b bound) (c query.DelayedChange, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	// The due time is the order in which they are read: they must move to where nobody will look again.
	st := work.stretch(work.due.By > 0)
	err = o.inOperation(ctx, work.id, func(tx pgx.Tx, at query.OperationPlace) (_ int64, after query.Place, err error) {
		if !at.After.At.IsZero() {
			st.From = &query.DelayedKey{DueAt: at.After.At, Seq: at.After.Seq}
		}
		if err := o.store.FindByKey(ctx, tx); err != nil {
			return 0, after, err
		}
		if work.kind == kindCancel {
			c, err = o.store.CancelDelayed(ctx, tx, st, work.filter, work.id, b.rows, b.bytes)
		} else {
			c, err = o.store.RescheduleDelayed(ctx, tx, st, work.filter, work.due, work.id, b.rows)
		}
		if c.Next != nil {
			after = query.Place{At: c.Next.DueAt, Seq: c.Next.Seq}
		}
		return c.N, after, err
	})
	return c, err
}

// delayedWork is what Cancel or Reschedule sets out to do.
type delayedWork struct {
	running
	filter  query.Filter
	due     query.Due         // of a Reschedule
	upTo    int64             // messages with higher numbers came to be delayed after it began
	lo, hi  *query.DelayedKey // those due first and last that it is about; nil: there is no such bound
	none    bool              // it is about none
	unnamed error             // *NoDelayedError for names that are not there
}

func (o Delayed) prepareDelayed(ctx context.Context, f Filter) (work delayedWork, err error) {
	if f.ChoosesAll() && !f.All {
		return work, ErrDelayedFilterEmpty
	}
	if work.filter, err = o.delayedFilter(ctx, f); err != nil {
		return work, err
	}
	if work.upTo, err = o.store.LastDelayed(ctx, o.pool); err != nil {
		return work, fmt.Errorf("read the last number of the delayed messages: %w", err)
	}
	work.upTo = max(1, work.upTo) // 0 would mean all
	if len(f.Names) == 0 && f.Limit <= 0 {
		return work, nil
	}
	// A limit becomes a place in the order of the table, because the work may have to go the other way.
	var named []DelayedMessage
	var first, last *query.DelayedKey
	err = o.eachDelayed(ctx, f, work.filter, func(rows []query.DelayedRow) error {
		for _, row := range rows {
			key := row.Key()
			last = &key
			if first == nil {
				first = last
			}
			if len(f.Names) > 0 {
				named = append(named, delayedMessage(row))
			}
		}
		return nil
	})
	work.lo, work.hi, work.none, work.unnamed = first, last, first == nil, missingDelayed(f, named)
	if f.Order == Newest {
		work.lo, work.hi = last, first
	}
	return work, err
}

// stretch is what is read, in a direction that need not be the order of the filter.
func (w delayedWork) stretch(newest bool) query.DelayedStretch {
	begin, end, before := w.lo, w.hi, int64(-1)
	if newest {
		begin, end, before = w.hi, w.lo, 1
	}
	st := query.DelayedStretch{Newest: newest, UpTo: w.upTo, To: end}
	if begin != nil { // From is left out
		st.From = &query.DelayedKey{DueAt: begin.DueAt, Seq: begin.Seq + before}
	}
	return st
}
