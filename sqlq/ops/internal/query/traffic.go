package query

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Reading is how many messages have come into a queue's table since it was made.
type Reading struct {
	Queue string
	N     int64
}

// ReadArrivals reads how far the sequence of each queue is, which an insert moves by one. Queues whose sequence the
// role may not read are left out: of PostgreSQL 14 to 17 the function that reads it would end the statement. It locks
// nothing and reads one row of the registry and one of the sequence a queue.
func (s queueQueries) ReadArrivals(ctx context.Context, db DBTX) ([]Reading, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT name, CASE WHEN has_sequence_privilege(seq, 'SELECT, USAGE') THEN %s(name) ELSE 0 END
		FROM (SELECT name, to_regclass(format('%%I.%%I', $1::text, 's_' || name)) AS seq FROM %s) q
		WHERE has_sequence_privilege(seq, 'SELECT, USAGE')`, s.table("arrived"), s.table("queue")), s.Name())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Reading])
}
