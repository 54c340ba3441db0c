package store

import (
	"context"
	"fmt"
)

// ForgetHistory removes up to limit records of changes to single messages, and as many of operations, that are older than
// they are kept, and says whether there may be more. Rows that others hold are passed over. It is done as the owner of the
// schema. Relies on the block range index of the history.
func (s Records) ForgetHistory(ctx context.Context, db DBTX, limit int) (more bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::bigint)`, s.table("forget_history")), limit).Scan(&more)
	return more, err
}
