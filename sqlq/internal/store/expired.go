package store

import (
	"context"
	"fmt"
)

// Swept is what one piece of a sweep did.
type Swept struct {
	Removed int
	UpTo    int64 // the seq up to which it has looked; 0: to the end of the queue
	More    bool  // the bytes kept it from reading on
}

// SweepExpired removes messages from a queue whose time to live has passed. It reads up to rows rows after a seq, in order,
// and removes no more than so many bytes, but one message at least. Expiry has no index, because every message would pay for
// it. Rows that others hold are passed over. It is done as the owner of the schema. An error with SQLSTATE 55P03 says that
// somebody has the queue's table for long. Relies on the primary key.
func (s Queues) SweepExpired(ctx context.Context, db DBTX, queue string, after int64, rows int, bytes int64) (swept Swept, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT removed, up_to, more FROM %s($1::text, $2::bigint, $3::bigint, $4::bigint)`, s.table("sweep_expired")),
		queue, after, rows, bytes).Scan(&swept.Removed, &swept.UpTo, &swept.More)
	return swept, err
}
