package store

import (
	"context"
	"fmt"
)

// SweepExpired removes messages from a queue whose time to live has passed. It reads up to limit rows after a seq, in
// order, and returns how many it removed and up to which seq it read: 0 at the end of the queue. Expiry has no index,
// because every message would pay for it. Rows that others hold are passed over. It is done as the owner of the schema.
// Relies on the primary key.
func (s *Schema) SweepExpired(ctx context.Context, db DBTX, queue string, after int64, limit int) (removed int, upTo int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT removed, up_to FROM %s($1::text, $2::bigint, $3::bigint)`, s.table("sweep_expired")),
		queue, after, limit).Scan(&removed, &upTo)
	return removed, upTo, err
}
