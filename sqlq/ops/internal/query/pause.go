package query

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// PauseQueue marks a queue as paused in the name of who, with a reason, and tells the receivers as part of the
// transaction. It says false when the queue is paused already, or not there. who "" is the role that is logged in. Locks the
// queue's row in the registry.
func (s queueQueries) PauseQueue(ctx context.Context, db DBTX, queue, who, reason string) (changed bool, err error) {
	return s.setPaused(ctx, db, `paused_at = clock_timestamp(),
			paused_by = concat_ws(': ', coalesce(nullif($2::text, ''), session_user), nullif($3::text, ''))`, `paused_at IS NULL`, queue, who, reason)
}

// ResumeQueue takes the mark of PauseQueue off. It says false when the queue is not paused, or not there.
func (s queueQueries) ResumeQueue(ctx context.Context, db DBTX, queue string) (changed bool, err error) {
	return s.setPaused(ctx, db, `paused_at = NULL, paused_by = NULL`, `paused_at IS NOT NULL`, queue)
}

func (s queueQueries) setPaused(ctx context.Context, db DBTX, set, where string, args ...any) (changed bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH changed AS (UPDATE %s SET %s WHERE name = $1::text AND %s RETURNING 1)
		SELECT count(pg_notify('sqlq_' || %s::regclass::oid, '')::text) > 0 FROM changed`,
		s.table("queue"), set, where, quote(s.table("queue"))), args...).Scan(&changed)
	return changed, err
}

// PausedQueues returns all queues that are paused, by name. Locks nothing; reads the registry, which is small.
func (s queueQueries) PausedQueues(ctx context.Context, db DBTX) ([]store.Paused, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT name, paused_at, coalesce(paused_by, '') FROM %s WHERE paused_at IS NOT NULL ORDER BY name`, s.table("queue")))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[store.Paused])
}
