package query

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// DropQueue removes a queue, with force also one that holds messages, and returns how many went with it. Takes the
// advisory lock of queue DDL and locks the queue's table against everyone.
func (s queueQueries) DropQueue(ctx context.Context, db DBTX, name string, force bool) (removed int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::text, $2::boolean)`, s.table("drop_queue")), name, force).Scan(&removed)
	return removed, err
}

// QueueExists reports whether there is such a queue. Locks nothing. Relies on the registry's primary key.
func (s queueQueries) QueueExists(ctx context.Context, db DBTX, name string) (exists bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE name = $1)`, s.table("queue")), name).Scan(&exists)
	return exists, err
}

// TypeNames returns the event types that are subscribed and the types of failed messages. Locks nothing. Relies on the index
// (type, failed_at, seq) of the error table, of which it reads one entry a type.
func (s queueQueries) TypeNames(ctx context.Context, db DBTX) ([]string, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH RECURSIVE f AS (
			(SELECT type FROM %[1]s ORDER BY type LIMIT 1)
			UNION ALL
			SELECT (SELECT e.type FROM %[1]s e WHERE e.type > f.type ORDER BY e.type LIMIT 1) FROM f WHERE f.type IS NOT NULL
		)
		SELECT type FROM f WHERE type IS NOT NULL UNION SELECT type FROM %[2]s ORDER BY 1`, s.table("error"), s.table("subscription")))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
