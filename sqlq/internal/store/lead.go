package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lead is the role of the one process that does the background work of the schema.
type Lead struct{ base }

// Try tries to become the one process that does the background work of the schema. The session keeps the lock, and
// does not ask while it has it.
func (s Lead) Try(ctx context.Context, db DBTX) (leads bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT pg_try_advisory_lock(%s)`, s.aliveKeys("0"))).Scan(&leads)
	return leads, err
}

// Leave gives the lead back, and says whether the session had it.
func (s Lead) Leave(ctx context.Context, db DBTX) (led bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT pg_advisory_unlock(%s)`, s.aliveKeys("0"))).Scan(&led)
	return led, err
}

// Eldest says whether the oldest instance that is taken for alive is among the given ones. Locks nothing.
func (s Lead) Eldest(ctx context.Context, db DBTX, ids []int32) (is bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT coalesce(min(id) = ANY ($1::int[]), false) FROM %s WHERE drained_at IS NULL AND crashed_at IS NULL`, s.table("instance")), ids).Scan(&is)
	return is, err
}

// Late says what has been left undone: a leader that is frozen does nothing, and nobody else would.
type Late struct {
	Message  bool // a delayed message is overdue
	Instance bool // an instance has not said for longer than its lease time that it lives, and is not marked
}

// Late looks for what the leader should have done. Relies on the primary key of delayed.
func (s Lead) Late(b *pgx.Batch, overdue time.Duration, into *Late) {
	b.Queue(fmt.Sprintf(`
		SELECT coalesce((SELECT due_at FROM %s('-infinity')) < clock_timestamp() - $1::bigint * interval '1 microsecond', false),
			EXISTS (SELECT FROM %s WHERE drained_at IS NULL AND crashed_at IS NULL AND heartbeat_at < clock_timestamp() - lease_time)`,
		s.table("next_due"), s.table("instance")), overdue.Microseconds()).QueryRow(func(row pgx.Row) error {
		return row.Scan(&into.Message, &into.Instance)
	})
}
