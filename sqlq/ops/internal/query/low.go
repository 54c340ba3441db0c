package query

import (
	"context"
	"fmt"
)

// SeenLow is Low for those who only look, and may not forget. Locks nothing.
func (s queueQueries) SeenLow(ctx context.Context, db DBTX, queue string) (low int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT CASE WHEN low <= (SELECT %s) THEN low ELSE 0 END FROM %s WHERE name = $1`,
		s.Arrived(queue), s.table("queue")), queue).Scan(&low)
	return low, err
}
