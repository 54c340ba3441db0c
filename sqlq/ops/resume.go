package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// Resume continues an operation that was interrupted or has stalled, with its filter, snapshot, limit and rate, after the last
// message that it changed. It returns the state of the operation then, also together with an error, which is one of those of
// Replay. Two processes may resume the same operation at the same time.
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

// PreviewResume returns an operation that Operations.Resume would continue, and changes nothing; its error is that of
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
	r := running{id: op.ID, kind: op.Kind, start: op.Done, wanted: op.Wanted, opts: ChangeOptions{Rate: told.Rate, Progress: progress}}
	switch op.Kind {
	case kindMove:
		goOn, err = Ready(o).moveAgain(r, stands, *op.UpTo, f)
	case kindPurge:
		goOn, err = Ready(o).purgeAgain(r, stands, *op.UpTo, f, told)
	case kindCancel, kindReschedule:
		goOn, err = Delayed(o).delayedAgain(r, *op.UpTo, f, told)
	default:
		goOn, err = Failed(o).failedAgain(ctx, r, op, f)
	}
	if err != nil {
		return nil, fmt.Errorf("operation %d: %w", op.ID, err)
	}
	return goOn, nil
}

// failedAgain returns what does the rest of a change of failed messages.
func (o Failed) failedAgain(ctx context.Context, r running, op query.Operation, f Filter) (func(context.Context) error, error) {
	chosen, err := o.choose(ctx, f)
	if err != nil {
		return nil, err
	}
	c := change{running: r, plan: plan{kind: op.Kind, filter: f, chosen: chosen, to: operation(op).Queue, limit: int64(f.limit()), upTo: *op.UpTo}}
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
