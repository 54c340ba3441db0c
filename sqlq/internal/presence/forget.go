package presence

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// forgetRows is how many expired records one transaction removes, and forgetAgain the pause while there
// are more.
const forgetRows, forgetAgain = 1_000, time.Second

// rotateInbox forgets ids of handled messages that were kept for long enough.
func (c *chores) rotateInbox(ctx context.Context) (again time.Duration, err error) {
	done, err := c.keeper.Store.Inbox.Rotate(ctx, c.keeper.conn)
	if session.State(err) == session.LockNotAvailable { // a long transaction has the tables; the next time will do
		return finished, nil
	}
	switch done {
	case store.Rotated:
		again = 0 // another inbox may be due
	case store.SweptPiece:
		again = forgetAgain // the next ids of one that cannot be emptied
	default:
		again = finished
	}
	return again, err
}

// forgetArchived removes archived messages older than Config.KeepArchived, a round at a time.
func (c *chores) forgetArchived(ctx context.Context) (again time.Duration, err error) {
	if c.keeper.KeepArchived == 0 {
		return finished, nil
	}
	return c.forget(ctx, &c.archiving, func(tx pgx.Tx) (more bool, err error) {
		return c.keeper.Store.Records.ForgetArchived(ctx, tx, c.keeper.KeepArchived, c.archiving.rows, c.archiving.bytes)
	})
}

// forgetHistory removes old records of operations, a round at a time.
func (c *chores) forgetHistory(ctx context.Context) (again time.Duration, err error) {
	return c.forget(ctx, &c.forgetting, func(tx pgx.Tx) (more bool, err error) {
		return c.keeper.Store.Records.ForgetHistory(ctx, tx, c.forgetting.rows)
	})
}

// forget removes a round of records. If it takes too long, the next one is smaller.
func (c *chores) forget(ctx context.Context, r *round, remove func(tx pgx.Tx) (more bool, err error)) (again time.Duration, err error) {
	var more bool
	err = c.keeper.bounded(ctx, func(tx pgx.Tx) (err error) {
		more, err = remove(tx)
		return err
	})
	if isFaultOfWork(err) && !r.isLeast() {
		r.shrink()
		return forgetAgain, nil
	}
	if more {
		return forgetAgain, err
	}
	return finished, err
}
