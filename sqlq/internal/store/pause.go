package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Paused is a queue that an operator has paused.
type Paused struct {
	Queue string
	Since time.Time
	By    string // who, and why
}

// QueuePaused appends those of the queues that are paused to into. Locks nothing. Relies on the registry's primary key.
func (s *Schema) QueuePaused(b *pgx.Batch, queues []string, into *[]Paused) {
	b.Queue(fmt.Sprintf(`
		SELECT name, paused_at, coalesce(paused_by, '') FROM %s WHERE name = ANY ($1::text[]) AND paused_at IS NOT NULL`, s.table("queue")),
		queues).Query(func(rows pgx.Rows) error {
		paused, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Paused])
		*into = append(*into, paused...)
		return err
	})
}

// PauseQueue marks a queue as paused in the name of who, with a reason, and tells the receivers as part of the
// transaction. It says false when the queue is paused already, or not there. who "" is the role that is logged in. Locks the
// queue's row in the registry.
func (s *Schema) PauseQueue(ctx context.Context, db DBTX, queue, who, reason string) (changed bool, err error) {
	return s.setPaused(ctx, db, `paused_at = clock_timestamp(),
			paused_by = concat_ws(': ', coalesce(nullif($2::text, ''), session_user), nullif($3::text, ''))`, `paused_at IS NULL`, queue, who, reason)
}

// ResumeQueue takes the mark of PauseQueue off. It says false when the queue is not paused, or not there.
func (s *Schema) ResumeQueue(ctx context.Context, db DBTX, queue string) (changed bool, err error) {
	return s.setPaused(ctx, db, `paused_at = NULL, paused_by = NULL`, `paused_at IS NOT NULL`, queue)
}

func (s *Schema) setPaused(ctx context.Context, db DBTX, set, where string, args ...any) (changed bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH changed AS (UPDATE %s SET %s WHERE name = $1::text AND %s RETURNING 1)
		SELECT count(pg_notify('sqlq_' || %s::regclass::oid, '')::text) > 0 FROM changed`,
		s.table("queue"), set, where, quote(s.table("queue"))), args...).Scan(&changed)
	return changed, err
}

// PausedQueues returns all queues that are paused, by name. Locks nothing; reads the registry, which is small.
func (s *Schema) PausedQueues(ctx context.Context, db DBTX) ([]Paused, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT name, paused_at, coalesce(paused_by, '') FROM %s WHERE paused_at IS NOT NULL ORDER BY name`, s.table("queue")))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Paused])
}
