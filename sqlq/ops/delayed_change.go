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

// ErrDelayedFilterEmpty is returned by Cancel and Reschedule for a filter that chooses every delayed message and does not
// say All.
var ErrDelayedFilterEmpty = errors.New("the filter chooses every delayed message: name a queue, a type or messages, or say that all are meant")

// Cancel removes the delayed messages that a filter chooses, for good, and returns how many, also together with an error.
// Messages that come to be delayed after it began stay, and so do those that move to their queues at this moment. It works
// in batches, each a transaction: one that was interrupted returns an *InterruptedError, and Operations.Resume does the rest.
// Each message is in the history, the whole in the table of operations.
func (o Delayed) Cancel(ctx context.Context, f Filter, opts ChangeOptions) (cancelled int64, err error) {
	return o.changeDelayed(ctx, kindCancel, f, query.Due{}, opts)
}

// Reschedule gives the delayed messages that a filter chooses another due time, never before now, and returns how many have
// one, also together with an error; those that are due then anyway are not counted. It works in batches like Cancel, and
// wakes those who move messages that are due.
func (o Delayed) Reschedule(ctx context.Context, f Filter, to Due, opts ChangeOptions) (changed int64, err error) {
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
func (o Delayed) changeDelayed(ctx context.Context, kind string, f Filter, due query.Due, opts ChangeOptions) (changed int64, err error) {
	work, err := o.prepareDelayed(ctx, f, opts)
	if err != nil || work.none {
		return 0, errors.Join(err, work.unnamed)
	}
	if err := o.checkDelayed(ctx, work); err != nil {
		return 0, err
	}
	told := write(work.told, opts.Rate)
	told.First, told.Last = writePlace(work.lo), writePlace(work.hi)
	if kind == kindReschedule && due.By != 0 {
		told.By = due.By.String()
	} else if kind == kindReschedule {
		told.Due = &due.At
	}
	work.running, work.due = running{kind: kind, opts: opts}, due
	if err = o.start(ctx, &work.running, told, query.Operation{UpTo: &work.upTo}, query.Place{}); err != nil {
		return 0, err
	}
	changed, err = o.performDelayed(ctx, work)
	return changed, errors.Join(err, work.unnamed)
}

// delayedAgain returns what does the rest of a Cancel or Reschedule.
func (o Delayed) delayedAgain(r running, upTo int64, f Filter, told written) (goOn func(context.Context) error, err error) {
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
		_, err := o.performDelayed(ctx, work)
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
func (o Delayed) performDelayed(ctx context.Context, work delayedWork) (changed int64, err error) {
	// The due time is the order in which they are read: they must move to where nobody will look again.
	st := work.stretch(work.due.By > 0)
	return o.perform(ctx, work.running, delayedBatch, func(tx pgx.Tx, at query.OperationPlace, most int64, b bound) (step, error) {
		if !at.After.At.IsZero() {
			st.From = &query.DelayedKey{DueAt: at.After.At, Seq: at.After.Seq}
		}
		if err := o.store.FindByKey(ctx, tx); err != nil {
			return step{}, err
		}
		var c query.DelayedChange
		var err error
		if work.kind == kindCancel {
			c, err = o.store.CancelDelayed(ctx, tx, st, work.filter, work.id, int(most), b.bytes)
		} else {
			c, err = o.store.RescheduleDelayed(ctx, tx, st, work.filter, work.due, work.id, int(most))
		}
		s := step{n: c.N, looked: most, end: c.Next == nil}
		if c.Next != nil {
			s.after = query.Place{At: c.Next.DueAt, Seq: c.Next.Seq}
		}
		if c.Channel != "" {
			s.channels = []string{c.Channel}
		}
		return s, err
	}, func(err error) (bool, error) { return false, fmt.Errorf("%s delayed messages: %w", work.kind, err) })
}

// delayedWork is what Cancel or Reschedule sets out to do.
type delayedWork struct {
	running
	told    Filter // its times absolute
	filter  query.Filter
	due     query.Due         // of a Reschedule
	at      time.Time         // when it began, by the clock of the database
	upTo    int64             // messages with higher numbers came to be delayed after it began
	lo, hi  *query.DelayedKey // those due first and last that it is about; nil: there is no such bound
	none    bool              // it is about none
	unnamed error             // *NoDelayedError for names that are not there
}

func (o Delayed) prepareDelayed(ctx context.Context, f Filter, opts ChangeOptions) (work delayedWork, err error) {
	if f, err = opts.narrow(f); err != nil {
		return work, err
	}
	if f.ChoosesAll() && !f.All {
		return work, ErrDelayedFilterEmpty
	}
	if work.at, err = o.began(ctx, opts.UpTo); err != nil {
		return work, err
	}
	f.Since, f.Until = f.Since.from(work.at), f.Until.from(work.at)
	work.told, work.opts = f, opts
	if work.filter, err = o.delayedFilter(ctx, f); err != nil {
		return work, err
	}
	if work.upTo, err = o.store.LastDelayed(ctx, o.pool); err != nil {
		return work, fmt.Errorf("read the last number of the delayed messages: %w", err)
	}
	work.upTo = max(1, opts.UpTo.number(work.upTo)) // 0 would mean all
	if len(f.Names) == 0 && f.Limit <= 0 {
		return work, nil
	}
	// A limit becomes a place in the order of the table, because the work may have to go the other way.
	var named []DelayedMessage
	var first, last *query.DelayedKey
	err = o.eachDelayed(ctx, f, work.filter, work.upTo, func(rows []query.DelayedRow) error {
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

// DelayedPreview is what a change of delayed messages would do, had it begun at this moment. Nothing is changed, locked or
// written down.
type DelayedPreview struct {
	Messages int64            // how many it would change, at least
	More     bool             // there are more than that: it stopped counting at CountLimit
	Sample   []DelayedMessage // the first of them
	Unnamed  *NoDelayedError  // names that are not there; nil: all are
	UpTo     Snapshot         // for ChangeOptions.UpTo
}

// MarshalJSON writes the preview as sqlq delayed cancel --dry-run -o json does.
func (v DelayedPreview) MarshalJSON() ([]byte, error) {
	return encode(struct {
		DryRun bool             `json:"dry_run"`
		Chosen int64            `json:"chosen"`
		More   bool             `json:"more"`
		Sample []DelayedMessage `json:"sample"`
	}{true, v.Messages, v.More, listed(v.Sample)})
}

// PreviewCancel says what Cancel would do.
func (o Delayed) PreviewCancel(ctx context.Context, f Filter, opts ChangeOptions) (DelayedPreview, error) {
	return o.previewDelayed(ctx, f, opts)
}

// PreviewReschedule says what Reschedule would do. Messages that are due at that time anyway are among those that it counts.
func (o Delayed) PreviewReschedule(ctx context.Context, f Filter, to Due, opts ChangeOptions) (DelayedPreview, error) {
	if err := to.check(); err != nil {
		return DelayedPreview{}, err
	}
	return o.previewDelayed(ctx, f, opts)
}

func (o Delayed) previewDelayed(ctx context.Context, f Filter, opts ChangeOptions) (v DelayedPreview, err error) {
	work, err := o.prepareDelayed(ctx, f, opts)
	if err != nil {
		return v, err
	}
	list, more, err := o.countDelayed(ctx, work)
	if err != nil {
		return v, err
	}
	v.Messages, v.More, v.Sample = int64(len(list)), more, list[:min(previewSample, len(list))]
	errors.As(missingDelayed(work.told, list), &v.Unnamed)
	v.UpTo = Snapshot{Number: work.upTo, At: work.at}
	if !more {
		v.UpTo.Messages = &v.Messages
	}
	if len(list) == 0 && v.Unnamed == nil {
		err = o.checkQueue(ctx, f.Queue)
	}
	return v, err
}

// countDelayed returns the messages that are to be changed, up to CountLimit; more: there are others.
func (o Delayed) countDelayed(ctx context.Context, work delayedWork) (list []DelayedMessage, more bool, err error) {
	f := work.told
	capped := f.Limit <= 0 || f.Limit > CountLimit
	if capped {
		f.Limit = CountLimit
	}
	err = o.eachDelayed(ctx, f, work.filter, work.upTo, func(rows []query.DelayedRow) error {
		for _, row := range rows {
			list = append(list, delayedMessage(row))
		}
		return nil
	})
	return list, capped && len(list) == CountLimit, err
}

// checkDelayed returns a *ChangedSincePreviewError when there is more to be changed than the preview saw.
func (o Delayed) checkDelayed(ctx context.Context, work delayedWork) error {
	if work.opts.UpTo.Messages == nil {
		return nil
	}
	list, more, err := o.countDelayed(ctx, work)
	if err != nil {
		return err
	}
	return work.opts.UpTo.check(int64(len(list)), !more)
}
