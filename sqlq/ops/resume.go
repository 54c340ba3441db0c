package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Resume goes on with an operation that was interrupted or has stalled, as it was begun: with its filter, its
// snapshot, its limit and its rate, after the last message that it changed. It returns how the operation stands then, also
// together with an error, which is one of those of Replay. That somebody else goes on with it at the same time does no harm.
func (o Operations) Resume(ctx context.Context, id int64, progress func(Progress)) (Operation, error) {
	op, err := o.readOperation(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	goOn, err := o.again(ctx, op, progress)
	if err != nil {
		return operation(op), err
	}
	resumed, err := o.store.ResumeOperation(ctx, o.pool, id)
	if err != nil {
		return operation(op), fmt.Errorf("resume operation %d: %w", id, err)
	}
	if !resumed {
		return operation(op), fmt.Errorf("operation %d was resumed or cancelled by somebody else just now: look with: sqlq operation show %[1]d", id)
	}
	err = goOn(ctx)
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if now, readErr := o.readOperation(after, id); readErr == nil {
		op = now
	}
	return operation(op), err
}

// PreviewResume returns an operation that Operations.Resume would go on with, and changes nothing; its error is that of
// Operations.Resume.
func (o Operations) PreviewResume(ctx context.Context, id int64) (Operation, error) {
	op, err := o.readOperation(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	_, err = o.again(ctx, op, nil)
	return operation(op), err
}

// again returns what does the rest of an operation.
func (o Operations) again(ctx context.Context, op query.Operation, progress func(Progress)) (goOn func(context.Context) error, err error) {
	stands := operation(op)
	switch {
	case !goesByBatches(op.Kind):
		return nil, fmt.Errorf("operation %d is of the kind %q, which cannot be resumed: run it again", op.ID, op.Kind)
	case stands.Status == OperationRunning:
		return nil, fmt.Errorf("operation %d is running; one whose process has died can be resumed when it has done nothing for %s", op.ID, query.StalledAfter)
	case !stands.Resumable():
		return nil, fmt.Errorf("operation %d is %s: there is nothing to resume", op.ID, stands.Status)
	}
	f, told, err := read(op.Filter)
	if err == nil && op.UpTo == nil {
		err = errors.New("it does not say up to which message it goes: run the command again")
	}
	if err != nil {
		return nil, fmt.Errorf("operation %d: %w", op.ID, err)
	}
	r := running{id: op.ID, kind: op.Kind, start: op.Done, wanted: op.Wanted}
	tell := func(_, changed int64) {
		if progress != nil {
			progress(Progress{Operation: op.ID, Kind: op.Kind, Done: op.Done + changed})
		}
	}
	switch op.Kind {
	case kindMove:
		goOn = Ready{o.core}.moveAgain(r, stands, *op.UpTo, f, told, tell)
	case kindPurge:
		goOn, err = Ready{o.core}.purgeAgain(r, stands, *op.UpTo, f, told, tell)
	case kindCancel, kindReschedule:
		goOn, err = Delayed{o.core}.delayedAgain(r, *op.UpTo, f, told, tell)
	default:
		goOn, err = Failed{o.core}.failedAgain(ctx, r, op, f, told, progress)
	}
	if err != nil {
		return nil, fmt.Errorf("operation %d: %w", op.ID, err)
	}
	return goOn, nil
}

// failedAgain returns what does the rest of a change of failed messages.
func (o Failed) failedAgain(ctx context.Context, r running, op query.Operation, f Filter, told written, progress func(Progress)) (func(context.Context) error, error) {
	chosen, err := o.choose(ctx, f)
	if err != nil {
		return nil, err
	}
	c := change{running: r, rate: int(told.Rate), progress: progress,
		plan: plan{kind: op.Kind, filter: f, chosen: chosen, to: operation(op).Queue, limit: int64(f.limit()), upTo: *op.UpTo}}
	if err := o.exceptGone(ctx, &c.plan); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		changed, err := o.perform(ctx, &c)
		if err == nil {
			err = o.told(ctx, c.plan, op.Done+changed)
		}
		return err
	}, nil
}

// running is an operation that goes by batches, in the hands of this process.
type running struct {
	id     int64
	kind   string
	start  int64  // messages that it had changed before
	wanted *int64 // as in InterruptedError
}

// conclude writes down how an operation ended that has changed so many messages, and says how to go on with one that was
// interrupted. It returns how many messages were changed, also together with an error.
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

// errEnded ends an operation that somebody else has brought to its end meanwhile.
var errEnded = errors.New("the operation has ended")

// inOperation runs a batch of an operation in a transaction of its own, and writes down in it how many messages it changed and
// the place that it came to. The operation is locked first: whoever goes on with it after a crash waits until the crashed
// batch is committed or undone, and several that go on with the same operation take turns, from the place that do is given.
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
