package presence

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// forgetArchived removes archived messages that were kept for Config.KeepArchived, a round at a time.
func (k *Keeper) forgetArchived(ctx context.Context) error {
	const what = "remove archived messages"
	u, keep := &k.upkeep, k.KeepArchived
	if keep == 0 || u.mayNotDelete {
		return nil
	}
	var more bool
	err := k.chore(ctx, func(tx pgx.Tx) (err error) {
		more, err = k.Store.ForgetArchived(ctx, tx, keep, u.archiving.rows, u.archiving.bytes)
		return err
	})
	if session.State(err) == session.InsufficientPrivilege {
		u.mayNotDelete = true
		k.Log.Warn("sqlq: this role may not "+what+", so Config.KeepArchived has no effect while it leads; run the endpoints as the owner of the schema, or remove them as an operator: sqlq error delete --status archived --until 90d", "err", err)
		return nil
	}
	if isFaultOfWork(err) && !u.archiving.isLeast() {
		u.archiving.shrink()
		u.archived = time.Now().Add(forgetAgain)
		return nil
	}
	if more {
		u.archived = time.Now().Add(forgetAgain)
	}
	return k.goOn(err, what)
}
