package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// lives is an SQL condition: the instance i is taken for alive.
const lives = `i.drained_at IS NULL AND i.crashed_at IS NULL AND i.heartbeat_at >= clock_timestamp() - least(greatest(i.lease_time, interval '0'), interval '100 years')`

// instanceState is an SQL expression: how the instance i stands.
const instanceState = `CASE WHEN i.crashed_at IS NOT NULL THEN 'crashed' WHEN i.drained_at IS NOT NULL THEN 'drained'
	WHEN i.heartbeat_at < clock_timestamp() - least(greatest(i.lease_time, interval '0'), interval '100 years') THEN 'late' ELSE 'running' END`

// ListedInstance is an instance as it stands in the table.
type ListedInstance struct {
	ID          int32
	Endpoint    string
	Host        string
	PID         int
	Version     string
	Concurrency int
	StartedAt   time.Time
	HeartbeatAt time.Time
	DrainedAt   *time.Time
	CrashedAt   *time.Time
	State       string // running, late, crashed or drained
	InHand      int
	Rate        float64
	Handled     int64
	Failed      int64
	Slow        int
	Slowest     *int64 // microseconds
	Expired     int64
}

// InstanceKey is a place in the order of the instances.
type InstanceKey struct {
	Endpoint string
	ID       int32
}

// ListInstances returns up to limit instances, of one endpoint or, with "", of all, by endpoint and the oldest first, behind a
// place in that order, which is nil at the beginning; without ended those that have ended are left out. Locks nothing. Reads the whole table, which is small: a row for each running
// instance, and for each that ended within a day.
func (s instanceQueries) ListInstances(ctx context.Context, db DBTX, endpoint string, ended bool, after *InstanceKey, limit int) ([]ListedInstance, error) {
	place, args := `true`, []any{endpoint, ended, limit}
	if after != nil {
		place, args = `(i.endpoint, i.id) > ($4::text, $5::int)`, append(args, after.Endpoint, after.ID)
	}
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT i.id, i.endpoint, i.host, i.pid, i.version, i.concurrency, i.started_at, i.heartbeat_at, i.drained_at, i.crashed_at,
			%s, i.in_hand, round(i.rate::numeric, 2)::float8, i.handled, i.failed, i.slow, %s, i.expired
		FROM %s i WHERE ($1::text = '' OR i.endpoint = $1::text) AND ($2::boolean OR (i.drained_at IS NULL AND i.crashed_at IS NULL)) AND %s
		ORDER BY i.endpoint, i.id LIMIT $3::bigint`, instanceState, lastingMicros(`i.slowest`), s.table("instance"), place), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[ListedInstance])
}
