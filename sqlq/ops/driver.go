package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// rateBatches is into how many batches a second a rate is divided.
const rateBatches = 20

// ChangeOptions are the options of changes that run in batches. The zero value has the defaults.
type ChangeOptions struct {
	// Limit is the maximum number of messages to change, in the order of the filter.
	// Default: that of the filter. Unit: messages. Cost: none.
	Limit int

	// Rate is the maximum number of messages per second, spread evenly, for receivers that cannot take them all at once.
	// Default: 0, no limit. Unit: messages per second. Cost: the lower, the longer the change takes.
	Rate float64

	// UpTo is the snapshot of a preview: messages that came later are left alone. If more messages would be changed than the preview
	// saw, none is changed, and the error is a *ChangedSincePreviewError.
	// Default: a snapshot is taken when the change begins. Unit: a snapshot. Cost: the messages are counted again.
	UpTo Snapshot

	// Began is called with the number of the operation before anything is changed, so that it can be watched and cancelled. It is
	// not called if the filter chooses nothing.
	// Default: none. Cost: the time of the call.
	Began func(operation int64)

	// Progress is called after each batch.
	// Default: none. Cost: the time of the call.
	Progress func(Progress)
}

// narrow returns the filter with the limit of the options.
func (opts ChangeOptions) narrow(f Filter) (Filter, error) {
	if opts.Limit < 0 || opts.Rate < 0 {
		return f, fmt.Errorf("limit %d and rate %g cannot be negative", opts.Limit, opts.Rate)
	}
	if opts.Limit > 0 && (f.Limit <= 0 || opts.Limit < f.Limit) {
		f.Limit = opts.Limit
	}
	return f, nil
}

// Progress says how far a change or a search has come.
type Progress struct {
	Operation int64  // the number of the operation; 0: it only looks
	Kind      string // of Operation; "": it only looks
	Looked    int64  // messages looked at by this call; 0: it goes straight to those that it changes
	Done      int64  // messages changed, those before an interruption included; found, where it only looks
	Wanted    *int64 // how many are to be; nil: they were too many to be counted
	At, UpTo  int64  // of failed messages: it has come to the number At, and ends at UpTo; else 0
}

// Snapshot identifies what a preview saw. It can be encoded as JSON, for a form that asks for confirmation.
type Snapshot struct {
	Number   int64     `json:"number"`   // messages with higher numbers came later
	At       time.Time `json:"at"`       // by the clock of the database: moments that are counted from now are counted from then
	Messages *int64    `json:"messages"` // how many were chosen; nil: they were too many to be counted
}

// taken reports whether there is a snapshot.
func (s Snapshot) taken() bool { return s.Number != 0 || !s.At.IsZero() }

// number returns the number up to which a change goes that begins now, when last was the highest.
func (s Snapshot) number(last int64) int64 {
	if s.taken() {
		return min(s.Number, last)
	}
	return last
}

// check returns a *ChangedSincePreviewError when n messages are more than the preview saw.
func (s Snapshot) check(n int64, sure bool) error {
	if s.Messages == nil || sure && n <= *s.Messages {
		return nil
	}
	return &ChangedSincePreviewError{Previewed: *s.Messages, Now: n}
}

// began returns the time from which a change counts: the snapshot's, or now by the clock of the database.
func (o *core) began(ctx context.Context, s Snapshot) (time.Time, error) {
	if s.taken() {
		return s.At, nil
	}
	now, err := o.store.Clock(ctx, o.pool)
	if err != nil {
		return now, fmt.Errorf("read the clock of the database: %w", err)
	}
	return now, nil
}

// running is an operation that this process performs in batches.
type running struct {
	id     int64
	kind   string
	start  int64  // messages that it had changed before
	wanted *int64 // as in InterruptedError
	opts   ChangeOptions
}

// start records that an operation begins, and passes its number to Began. filter is what the operation was given.
func (o *core) start(ctx context.Context, r *running, filter any, op query.Operation, after query.Place) (err error) {
	op.Wanted = r.wanted
	if r.id, err = o.beginIn(ctx, o.pool, r.kind, filter, op, after); err == nil && r.opts.Began != nil {
		r.opts.Began(r.id)
	}
	return err
}

// step is what one batch of an operation did.
type step struct {
	n        int64        // messages that it changed
	looked   int64        // messages that it looked at
	after    query.Place  // where it has come to
	end      bool         // it was the last
	channels []string     // to notify when it is committed
	then     func() error // what is to be done when it is; nil: nothing
	at, upTo int64        // as in Progress
}

// doing is what changes messages in a transaction, from where the operation has come to: up to most of them.
type doing func(tx pgx.Tx, at query.OperationPlace, most int64, b bound) (step, error)

// perform runs an operation in batches of up to whole messages, and records how it ended. It returns the number of messages that it
// changed, also together with an error.
func (o *core) perform(ctx context.Context, r running, whole int, do doing, again func(error) (bool, error)) (changed int64, err error) {
	changed, err = o.batches(ctx, r, whole, do, again)
	return o.conclude(ctx, r, changed, err)
}

// batches runs batch after batch, each a transaction of its own, until one is the last. One that takes too long is made smaller;
// of any other error again says whether to go on all the same, or what it is.
func (o *core) batches(ctx context.Context, r running, whole int, do doing, again func(error) (bool, error)) (changed int64, err error) {
	pace, b := pacer{rate: r.opts.Rate}, wholeBatch(whole)
	for looked := int64(0); ; {
		if err := pace.wait(ctx); err != nil {
			return changed, err
		}
		var s step
		var total int64
		err := o.inOperation(ctx, r.id, func(tx pgx.Tx, at query.OperationPlace) (_ int64, _ query.Place, err error) {
			s, err = do(tx, at, min(pace.most(whole), int64(b.rows)), b)
			total = at.Done + s.n
			return s.n, s.after, err
		})
		if errors.Is(err, errEnded) { // by another process that continued it
			return changed, nil
		}
		if b.shrinkAfter(err) {
			continue
		}
		if err != nil && again != nil {
			var goOn bool
			if goOn, err = again(err); goOn {
				continue
			}
		}
		if err != nil {
			return changed, err
		}
		pace.took(s.n)
		changed, looked = changed+s.n, looked+s.looked
		for _, channel := range s.channels {
			if err := o.wake(ctx, channel); err != nil {
				return changed, err
			}
		}
		if s.then != nil {
			if err := s.then(); err != nil {
				return changed, err
			}
		}
		if r.opts.Progress != nil {
			r.opts.Progress(Progress{Operation: r.id, Kind: r.kind, Looked: looked, Done: total, Wanted: r.wanted, At: s.at, UpTo: s.upTo})
		}
		if s.end {
			return changed, nil
		}
	}
}

// conclude records how an operation ended that has changed a number of messages, and says how to resume it if it was interrupted. It
// returns that number, also together with an error.
func (o *core) conclude(ctx context.Context, r running, changed int64, err error) (int64, error) {
	if err == nil {
		return changed, o.end(ctx, r.id, nil)
	}
	stopped := &InterruptedError{Operation: r.id, Kind: r.kind, Done: r.start + changed, Wanted: r.wanted, Err: err}
	if ctx.Err() != nil {
		stopped.Err = ctx.Err()
	}
	// This waits for a batch of which we do not know whether it was committed. Where the database is away it fails, and
	// the operation is taken for stalled before long.
	if endErr := o.end(ctx, r.id, stopped.Err); endErr != nil {
		return changed, stopped
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if op, err := o.store.ReadOperation(ctx, o.pool, r.id); err == nil {
		changed = max(changed, op.Done-r.start)
		stopped.Done = op.Done
	}
	return changed, stopped
}

// errEnded ends an operation that another process has finished or cancelled in the meantime.
var errEnded = errors.New("the operation has ended")

// inOperation runs a batch of an operation in a transaction of its own, and writes down in it how many messages it changed and
// the place that it came to. The operation is locked first: a process that resumes it after a crash waits until the crashed
// batch has committed or rolled back, and several that resume it take turns, each from the place that do is given.
func (o *core) inOperation(ctx context.Context, id int64, do func(tx pgx.Tx, at query.OperationPlace) (changed int64, after query.Place, err error)) error {
	return pgx.BeginTxFunc(ctx, o.pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
		at, err := o.store.LockOperation(ctx, tx, id)
		if err != nil {
			return fmt.Errorf("read operation %d: %w", id, err)
		}
		switch at.Status {
		case statusRunning:
		case statusCancelled:
			return ErrCancelled
		case statusDone:
			return errEnded
		default:
			return fmt.Errorf("operation %d is %s", id, at.Status)
		}
		changed, after, err := do(tx, at)
		if err != nil {
			return err
		}
		goesOn, err := o.store.AdvanceOperation(ctx, tx, id, changed, after)
		switch {
		case err != nil:
			return fmt.Errorf("write operation %d down: %w", id, err)
		case !goesOn:
			return ErrCancelled
		}
		return nil
	})
}

// pacer spreads messages evenly over time. After a delay it does not catch up: that would be a burst.
type pacer struct {
	rate  float64   // messages per second; 0: no limit
	next  time.Time // when more may be taken
	began time.Time // when more were
}

// most returns how many messages may be taken at once, of a whole batch.
func (p *pacer) most(whole int) int64 {
	if p.rate == 0 {
		return int64(whole)
	}
	return int64(min(max(1, p.rate/rateBatches), float64(whole)))
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
	lasts := time.Duration(float64(n) / p.rate * float64(time.Second))
	if p.began.Sub(p.next) > lasts { // else it was a little late, which the next batch makes good
		p.next = p.began
	}
	p.next = p.next.Add(lasts)
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
