package store

import (
	"context"
	"fmt"
)

// ReadTraffic takes a reading of what has arrived in the queues. It writes a row for each queue in which something arrived
// since the last reading or the one before, and is done as the owner of the schema. An error with SQLSTATE 55P03 says that
// somebody holds a queue's sequence for long: a transaction drops the queue.
func (s *Schema) ReadTraffic(ctx context.Context, db DBTX) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`SELECT %s()`, s.table("read_traffic")))
	return err
}

// ForgetHistory removes up to limit records of changes to single messages, and as many of operations, that are older than
// they are kept, and says whether there may be more. Rows that others hold are passed over. It is done as the owner of the
// schema. Relies on the block range index of the history.
func (s *Schema) ForgetHistory(ctx context.Context, db DBTX, limit int) (more bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::bigint)`, s.table("forget_history")), limit).Scan(&more)
	return more, err
}
