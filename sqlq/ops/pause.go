package ops

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Pause has a queue hand out no more messages, in the name and for the reason of the Actor, and tells its receivers;
// false: it was paused already, and stays as it was. Sending goes on, and messages that are being handled are handled to
// their end.
func (o Queues) Pause(ctx context.Context, name string) (changed bool, err error) {
	return o.setPaused(ctx, name, kindPause, func(tx pgx.Tx) (bool, error) {
		return o.store.PauseQueue(ctx, tx, name, o.actor.OSUser, o.actor.Reason)
	})
}

// Resume has a paused queue hand out messages again; false: it was not paused.
func (o Queues) Resume(ctx context.Context, name string) (changed bool, err error) {
	return o.setPaused(ctx, name, kindResume, func(tx pgx.Tx) (bool, error) {
		return o.store.ResumeQueue(ctx, tx, name)
	})
}

func (o Queues) setPaused(ctx context.Context, name, kind string, set func(pgx.Tx) (bool, error)) (changed bool, err error) {
	err = pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		if changed, err = set(tx); err != nil || !changed {
			return err
		}
		return o.record(ctx, tx, kind, name, struct{}{}, 0)
	})
	if err != nil {
		return false, fmt.Errorf("%s queue %q: %w", kind, name, err)
	}
	if !changed {
		return false, o.mustExist(ctx, name)
	}
	return true, nil
}
