package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Due says when delayed messages are to be due: one of its fields. The zero value is now. A time that has passed is now,
// too.
type Due struct {
	At time.Time
	In time.Duration // from now, by the clock of the database
	By time.Duration // so much later than they were to be; earlier if it is negative
}

func (d Due) check() error {
	if (!d.At.IsZero() && d.In != 0) || (!d.At.IsZero() && d.By != 0) || (d.In != 0 && d.By != 0) {
		return errors.New("a time, a delay from now and a shift exclude one another")
	}
	if d.In < 0 {
		return fmt.Errorf("a delay of %s ends in the past", d.In)
	}
	return nil
}

// DelayedOptions says how Cancel and Reschedule work. The zero value is good.
type DelayedOptions struct {
	// Progress is called after each batch with the number of messages that were looked at and changed so far. Default: nobody is
	// told.
	Progress func(looked, changed int64)
}

// UnfinishedError is returned by Reschedule when it ended before its time while it moved messages by a shift, which must
// not be done to them twice.
type UnfinishedError struct {
	Until time.Time // those due before this are still to be moved; the others that were chosen have been
	Left  int       // how many they are, where the filter had a limit; else 0
	Err   error
}

func (e *UnfinishedError) Error() string {
	limit := ""
	if e.Left > 0 {
		limit = fmt.Sprintf(" --limit %d", e.Left)
	}
	return fmt.Sprintf("%v\nTo go on without moving any twice, say it again with: --until %s%s", e.Err, e.Until.UTC().Format(time.RFC3339Nano), limit)
}

func (e *UnfinishedError) Unwrap() error { return e.Err }

// ErrDelayedFilterEmpty is returned by Cancel and Reschedule for a filter that chooses every delayed message and does not
// say All.
var ErrDelayedFilterEmpty = errors.New("the filter chooses every delayed message: name a queue, a type or messages, or say that all are meant")

// Cancel removes the delayed messages that a filter chooses, for good, and returns how many, also together with an error.
// Messages that come to be delayed after it began stay, and so do those that move to their queues at this moment. It works
// in batches, each a transaction: one that was interrupted has removed some and can be called again. Each message is
// in the history, the whole in the table of operations.
func (o *Ops) Cancel(ctx context.Context, f Filter, opts DelayedOptions) (cancelled int64, err error) {
	work, err := o.prepareDelayed(ctx, f)
	if err != nil {
		return 0, err
	}
	cancelled, _, err = o.changeDelayed(ctx, kindCancel, delayedRecord(f, ""), work, false, opts, func(ctx context.Context, tx pgx.Tx, st store.DelayedStretch, operation int64, limit int) (store.DelayedChange, error) {
		return o.store.CancelDelayed(ctx, tx, st, work.filter, operation, limit)
	})
	return cancelled, errors.Join(err, work.unnamed)
}

// Reschedule gives the delayed messages that a filter chooses another due time, never before now, and returns how many have
// one, also together with an error; those that are due then anyway are not counted. It works in batches like Cancel, and
// wakes those who move messages that are due. A shift (Due.By) that was interrupted is an *UnfinishedError.
func (o *Ops) Reschedule(ctx context.Context, f Filter, to Due, opts DelayedOptions) (changed int64, err error) {
	if err := to.check(); err != nil {
		return 0, err
	}
	work, err := o.prepareDelayed(ctx, f)
	if err != nil {
		return 0, err
	}
	due := store.Due{At: to.At.Truncate(time.Microsecond), By: to.By}
	if due.At.IsZero() && due.By == 0 {
		if due.At, err = o.store.Clock(ctx, o.pool); err != nil {
			return 0, fmt.Errorf("read the clock of the database: %w", err)
		}
		due.At = due.At.Add(to.In)
	}
	// The due time is the order in which they are read: they must move to where nobody will look again.
	newest := to.By > 0
	changed, at, err := o.changeDelayed(ctx, kindReschedule, delayedRecord(f, to.String()), work, newest, opts, func(ctx context.Context, tx pgx.Tx, st store.DelayedStretch, operation int64, limit int) (store.DelayedChange, error) {
		return o.store.RescheduleDelayed(ctx, tx, st, work.filter, due, operation, limit)
	})
	if err != nil && newest && at != nil {
		// Those due at that very time that are done have moved on.
		unfinished := &UnfinishedError{Until: at.DueAt.Add(time.Microsecond), Err: err}
		if f.Limit > 0 {
			unfinished.Left = max(1, f.Limit-int(changed))
		}
		err = unfinished
	}
	return changed, errors.Join(err, work.unnamed)
}

// String says it for the record.
func (d Due) String() string {
	switch {
	case !d.At.IsZero():
		return d.At.UTC().Format(time.RFC3339Nano)
	case d.By != 0:
		return "by " + d.By.String()
	default:
		return "in " + d.In.String()
	}
}

// delayedTold is what Cancel or Reschedule was told, as it stands in the operation table.
type delayedTold struct {
	Names   []string          `json:"names,omitempty"`
	Queue   string            `json:"queue,omitempty"`
	Type    string            `json:"type,omitempty"`
	Error   string            `json:"error,omitempty"`
	Since   string            `json:"since,omitempty"` // as ParseMoment reads it: what is relative counts from when it began
	Until   string            `json:"until,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	Min     *int              `json:"min_attempts,omitempty"`
	Max     *int              `json:"max_attempts,omitempty"`
	Order   Order             `json:"order,omitempty"`
	Limit   int               `json:"limit,omitempty"`
	All     bool              `json:"all,omitempty"`
	Due     string            `json:"due,omitempty"`
}

func delayedRecord(f Filter, due string) delayedTold {
	return delayedTold{f.Names, f.Queue, f.Type, f.Error, f.Since.told(), f.Until.told(), f.Headers, f.Body, f.Attempts.Min, f.Attempts.Max,
		f.Order, f.Limit, f.All, due}
}

// told writes a moment as ParseMoment reads it; "" is none.
func (m Moment) told() string {
	switch {
	case !m.At.IsZero():
		return m.At.UTC().Format(time.RFC3339Nano)
	case m.Ago < 0:
		return "+" + (-m.Ago).String()
	case m.set || m.Ago > 0:
		return m.Ago.String()
	default:
		return ""
	}
}

// changeDelayed runs the batches of Cancel or Reschedule, those due last first if newest, and returns how many messages
// they changed. With an error comes the place up to which they are done; nil: none is.
func (o *Ops) changeDelayed(ctx context.Context, kind string, told any, work delayedWork, newest bool, opts DelayedOptions, change delayedChange) (changed int64, at *store.DelayedKey, err error) {
	if work.none {
		return 0, nil, nil
	}
	operation, err := o.begin(ctx, kind, told, store.Operation{UpTo: &work.upTo})
	if err != nil {
		return 0, nil, err
	}
	stretch := work.stretch(newest)
	for looked := int64(0); ; {
		var c store.DelayedChange
		if err = ctx.Err(); err == nil {
			c, err = o.changeDelayedBatch(ctx, operation, stretch, change)
		}
		if err != nil {
			err = fmt.Errorf("%s delayed messages: %w", kind, err)
			return changed, at, errors.Join(err, o.end(ctx, operation, err))
		}
		changed += c.N
		looked += delayedBatch
		if err := o.wake(ctx, c.Channel); err != nil {
			return changed, c.Next, errors.Join(err, o.end(ctx, operation, err))
		}
		if opts.Progress != nil {
			opts.Progress(looked, changed)
		}
		if c.Next == nil {
			return changed, nil, o.end(ctx, operation, nil)
		}
		at, stretch.From = c.Next, c.Next
	}
}

// changeDelayedBatch runs one batch. It is short, and is not interrupted half-way: then nobody would know whether it was
// committed.
func (o *Ops) changeDelayedBatch(ctx context.Context, operation int64, st store.DelayedStretch, change delayedChange) (c store.DelayedChange, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	err = pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		if err := o.store.FindByKey(ctx, tx); err != nil {
			return err
		}
		if c, err = change(ctx, tx, st, operation, delayedBatch); err != nil || c.N == 0 {
			return err
		}
		goesOn, err := o.store.AdvanceOperation(ctx, tx, operation, c.N, store.Place{})
		if err == nil && !goesOn {
			err = fmt.Errorf("operation %d was cancelled", operation)
		}
		return err
	})
	return c, err
}

// delayedChange changes what a filter chooses of the next so many messages of a stretch.
type delayedChange func(ctx context.Context, tx pgx.Tx, st store.DelayedStretch, operation int64, limit int) (store.DelayedChange, error)

// delayedWork is what Cancel or Reschedule sets out to do.
type delayedWork struct {
	filter  store.Filter
	upTo    int64             // messages with higher numbers came to be delayed after it began
	lo, hi  *store.DelayedKey // those due first and last that it is about; nil: there is no such bound
	none    bool              // it is about none
	unnamed error             // *NoDelayedError for names that are not there
}

func (o *Ops) prepareDelayed(ctx context.Context, f Filter) (work delayedWork, err error) {
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
	var first, last *store.DelayedKey
	err = o.eachDelayed(ctx, f, work.filter, func(rows []store.DelayedRow) error {
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
func (w delayedWork) stretch(newest bool) store.DelayedStretch {
	begin, end, before := w.lo, w.hi, int64(-1)
	if newest {
		begin, end, before = w.hi, w.lo, 1
	}
	st := store.DelayedStretch{Newest: newest, UpTo: w.upTo, To: end}
	if begin != nil { // From is left out
		st.From = &store.DelayedKey{DueAt: begin.DueAt, Seq: begin.Seq + before}
	}
	return st
}

// ParseDuration reads how an operator writes a duration: 90s, 10m, 1h30m, 2d or 1w. A *FilterError points at what is wrong.
func ParseDuration(text string) (time.Duration, error) {
	d, at, why := parseDuration(text)
	if why != "" {
		return 0, &FilterError{Text: text, At: at, Why: why + "; write a duration such as 90s, 10m, 1h30m or 2d"}
	}
	return d, nil
}
