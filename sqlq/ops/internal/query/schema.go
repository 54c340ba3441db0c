package query

import (
	"context"
	"time"
)

// Clock returns the time by the clock of the database.
func (s filterQueries) Clock(ctx context.Context, db DBTX) (now time.Time, err error) {
	err = db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
}
