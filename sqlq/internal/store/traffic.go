package store

import (
	"context"
	"fmt"
)

// ReadTraffic takes a reading of what has arrived in the queues. It writes a row for each queue in which something arrived
// since the last reading or the one before, and is done as the owner of the schema. An error with SQLSTATE 55P03 says that
// somebody holds a queue's sequence for long: a transaction drops the queue.
func (s Queues) ReadTraffic(ctx context.Context, db DBTX) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`SELECT %s()`, s.table("read_traffic")))
	return err
}
