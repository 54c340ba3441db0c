package store

import (
	"context"
	"fmt"
)

// SweepExpired removes messages from a queue whose time to live has passed. It reads up to limit rows after a seq, in
// order, and returns how many it removed and up to which seq it read: 0 at the end of the queue. Expiry has no index,
// because every message would pay for it. Rows that others hold are passed over. Relies on the primary key.
func (s *Schema) SweepExpired(ctx context.Context, db DBTX, queue string, after int64, limit int) (removed int, upTo int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH read AS MATERIALIZED (
			SELECT seq, expires_at FROM %[1]s WHERE seq > $1 ORDER BY seq LIMIT $2
		), picked AS MATERIALIZED (
			SELECT q.seq FROM %[1]s q JOIN read r ON q.seq = r.seq WHERE r.expires_at <= clock_timestamp() FOR UPDATE OF q SKIP LOCKED
		), gone AS (
			DELETE FROM %[1]s q USING picked p WHERE q.seq = p.seq RETURNING 1
		)
		SELECT (SELECT count(*) FROM gone), CASE WHEN (SELECT count(*) FROM read) < $2 THEN 0 ELSE (SELECT max(seq) FROM read) END`,
		s.ready(queue)), after, limit).Scan(&removed, &upTo)
	return removed, upTo, err
}

// QueueNames returns all queues of the registry.
func (s *Schema) QueueNames(ctx context.Context, db DBTX) ([]string, error) {
	var names []string
	err := db.QueryRow(ctx, fmt.Sprintf(`SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM %s`, s.table("queue"))).Scan(&names)
	return names, err
}
