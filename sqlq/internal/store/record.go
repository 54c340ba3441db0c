package store

import (
	"context"
	"fmt"
	"time"
)

// Records are what is kept of what has happened.
type Records struct{ base }

// ForgetArchived removes archived messages that were archived longer ago than keep, of those that failed first at most so many
// and with bodies of so many bytes, but one at least, and says whether there may be more. Rows that others hold are passed
// over. Relies on the index (status, failed_at, seq): it reads what failed longer ago than that and is archived.
func (s Records) ForgetArchived(ctx context.Context, db DBTX, keep time.Duration, rows int, bytes int64) (more bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH old AS MATERIALIZED (
			SELECT e.seq, octet_length(e.body) AS size FROM %[1]s e
			WHERE e.status = 'archived' AND e.failed_at < clock_timestamp() - $1::bigint * interval '1 microsecond'
				AND e.archived_at < clock_timestamp() - $1::bigint * interval '1 microsecond'
			ORDER BY e.failed_at, e.seq LIMIT $2::bigint FOR UPDATE SKIP LOCKED
		), picked AS (
			SELECT o.seq FROM (SELECT seq, sum(size) OVER (ORDER BY seq) - size AS before FROM old) o WHERE o.before < $3::bigint
		), gone AS (
			DELETE FROM %[1]s e USING picked p WHERE e.seq = p.seq RETURNING 1
		)
		SELECT (SELECT count(*) FROM old) = $2::bigint OR (SELECT count(*) FROM gone) < (SELECT count(*) FROM old)`, s.table("error")),
		keep.Microseconds(), rows, bytes).Scan(&more)
	return more, err
}

// ForgetHistory removes up to limit records of changes to single messages, and as many of operations, that are older than
// they are kept, and says whether there may be more. Rows that others hold are passed over. It is done as the owner of the
// schema. Relies on the block range index of the history.
func (s Records) ForgetHistory(ctx context.Context, db DBTX, limit int) (more bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::bigint)`, s.table("forget_history")), limit).Scan(&more)
	return more, err
}
