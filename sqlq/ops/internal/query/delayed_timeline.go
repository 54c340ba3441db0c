package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// DueSpan is a span of time and how many delayed messages are due in it.
type DueSpan struct {
	From  *time.Time // nil: from the first on
	Until *time.Time // nil: to the last
	N     int64
}

// CountDueSpans counts the delayed messages that are overdue, that are due in each of so many spans of a length from now on, and that
// are due later, each up to a limit. Locks nothing. Relies on the primary key, of which it reads up to limit entries a span.
func (s delayedQueries) CountDueSpans(ctx context.Context, db DBTX, span time.Duration, spans, limit int) ([]DueSpan, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH bound AS (
			SELECT n, statement_timestamp() + n * $1::bigint * interval '1 microsecond' AS at FROM generate_series(0, $2::int) n
		), span AS (
			SELECT n, lag(at) OVER (ORDER BY n) AS "from", at AS until FROM bound
			UNION ALL
			SELECT n + 1, at, NULL FROM bound WHERE n = $2::int
		)
		SELECT s."from", s.until, (
			SELECT count(*) FROM (
				SELECT FROM %s d WHERE d.due_at >= coalesce(s."from", '-infinity') AND (d.due_at < s.until OR s.until IS NULL)
				ORDER BY d.due_at LIMIT $3::bigint) m)
		FROM span s ORDER BY s.n`, s.table("delayed")), span.Microseconds(), spans, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[DueSpan])
}
