package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// TypeSeen is a queue in which messages of a type were.
type TypeSeen struct {
	Queue  string
	N      int
	LastAt time.Time // when the last of them failed, or was sent
}

// TypeFailed returns the queues of the last limit failed messages of a type, the one that failed last first. Locks nothing.
// Relies on the index of the error table by type.
func (s routeQueries) TypeFailed(ctx context.Context, db DBTX, messageType string, limit int) ([]TypeSeen, error) {
	return s.typeSeen(ctx, db, fmt.Sprintf(`SELECT queue, failed_at FROM %s WHERE type = $1::text ORDER BY failed_at DESC, seq DESC LIMIT %d`, s.table("error"), limit), messageType)
}

// TypeWaiting returns the queues in which messages of a type wait, among the newest limit messages of each queue given. Locks
// nothing. Relies on the primary keys of the queues, of which it reads no more than that many numbers.
func (s routeQueries) TypeWaiting(ctx context.Context, db DBTX, messageType string, queues []string, limit int) ([]TypeSeen, error) {
	if len(queues) == 0 {
		return nil, nil
	}
	each := ""
	for i, queue := range queues {
		if i > 0 {
			each += "\n\t\tUNION ALL "
		}
		each += fmt.Sprintf(`SELECT %s AS queue, sent_at FROM %s WHERE seq > %s - %d AND type = $1::text`, quote(queue), s.ready(queue), s.lastSeq(s.ready(queue)), limit)
	}
	return s.typeSeen(ctx, db, each, messageType)
}

// typeSeen groups rows (queue, time) by queue.
func (s routeQueries) typeSeen(ctx context.Context, db DBTX, from, messageType string) ([]TypeSeen, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, count(*), max(at) FROM (%s) m (queue, at) GROUP BY queue ORDER BY max(at) DESC, queue`, from), pgx.QueryExecModeExec, messageType)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[TypeSeen])
}

// Endpoint is a running endpoint.
type Endpoint struct {
	Name      string
	Instances int
}

// Endpoints returns the endpoints that have running instances, by name. Locks nothing.
func (s routeQueries) Endpoints(ctx context.Context, db DBTX) ([]Endpoint, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT endpoint, count(*) FROM %s WHERE drained_at IS NULL AND crashed_at IS NULL GROUP BY endpoint ORDER BY endpoint`, s.table("instance")))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Endpoint])
}
