package sqlq

import (
	"context"
	"fmt"
	"time"
)

// archivedRows bounds the archived messages that one transaction removes, and archivedBytes their bodies, in bytes.
const archivedRows, archivedBytes = 1_000, 16 << 20

// forgetArchived removes archived messages that were kept for Config.KeepArchived: a piece, and more of them soon if there are.
func (k *keeper) forgetArchived(ctx context.Context) error {
	keep := k.run.client.config.KeepArchived
	if keep == 0 || k.upkeep.mayNotDelete {
		return nil
	}
	more, err := k.run.client.store.ForgetArchived(ctx, k.conn, keep, archivedRows, archivedBytes)
	if sqlState(err) == insufficientPrivs {
		k.upkeep.mayNotDelete = true
		k.run.client.log.Warn("sqlq: this role may not remove archived messages, so Config.KeepArchived has no effect while it leads; run the endpoints as the owner of the schema, or remove them as an operator: sqlq error delete --status archived --until 90d", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove archived messages: %w", err)
	}
	if more {
		k.upkeep.archived = time.Now().Add(forgetAgain)
	}
	return nil
}
