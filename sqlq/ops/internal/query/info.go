package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// QueueState is what the registry and the tables around it say of a queue, without counting.
type QueueState struct {
	Name      string
	Low       int64 // no message of the queue has a seq up to this
	CreatedAt time.Time
	PausedAt  *time.Time // nil: it is not paused
	PausedBy  string
	In        *float64 // messages a second that arrive; nil: not known
	Out       float64  // messages a second that running instances complete
	Instances int      // of the endpoint, running
}

// readingAge is how old a reading of the traffic may be: the leading process takes one every ten seconds.
const readingAge = 30 * time.Second

// QueueStates returns all queues by name, or one where name is not "". Locks nothing. It reads the registry, traffic and
// instance, which are small, and the sequence of a queue in which nothing has arrived for a while: a reading that is old
// may mean that nothing came since, or that no instance reads the sequence.
func (s queueQueries) QueueStates(ctx context.Context, db DBTX, name string) ([]QueueState, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT q.name, q.low, q.created_at, q.paused_at, coalesce(q.paused_by, ''),
			CASE WHEN t.at > clock_timestamp() - interval '%[4]d seconds' AND isfinite(t.at) AND isfinite(coalesce(t.before_at, t.at)) THEN
					(t.arrived - t.before)::float8 / nullif(extract(epoch FROM t.at - t.before_at)::float8, 0)
				WHEN %[5]s(q.name) = coalesce(t.arrived, 0) THEN 0
			END, coalesce(i.rate, 0)::float8, coalesce(i.n, 0)::int
		FROM %[1]s q
		LEFT JOIN %[2]s t ON t.queue = q.name
		LEFT JOIN (SELECT i.endpoint, sum(i.rate) FILTER (WHERE i.rate BETWEEN 0 AND 1e9) AS rate, count(*) AS n FROM %[3]s i WHERE `+lives+` GROUP BY i.endpoint) i ON i.endpoint = q.name
		WHERE $1::text = '' OR q.name = $1::text ORDER BY q.name`,
		s.table("queue"), s.table("traffic"), s.table("instance"), int(readingAge.Seconds()), s.table("arrived")), name)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[QueueState])
}

// QueueTable is what the database's catalogue and statistics say of a queue's table.
type QueueTable struct {
	Bytes      int64 // the table with its index and large bodies
	Dead       int64 // rows that vacuum has not removed, by the statistics
	Subscribed []string
}

// QueueTable returns what is known of a queue's table, and the event types that are subscribed. Takes a share lock on the
// table for a moment, as every look at a table's size does.
func (s queueQueries) QueueTable(ctx context.Context, db DBTX, queue string) (QueueTable, error) {
	var t QueueTable
	err := db.QueryRow(ctx, fmt.Sprintf(`
		SELECT coalesce(pg_total_relation_size($2::text::regclass), 0), coalesce(pg_stat_get_dead_tuples($2::text::regclass), 0),
			(SELECT coalesce(array_agg(s.type ORDER BY s.type), '{}') FROM %s s WHERE s.queue = $1::text)`, s.table("subscription")),
		queue, s.ready(queue)).Scan(&t.Bytes, &t.Dead, &t.Subscribed)
	return t, err
}

// QueueInstance is a running instance of a queue's endpoint.
type QueueInstance struct {
	ID          int32
	Host        string
	PID         int
	Version     string
	Concurrency int
	InHand      int     // handlers running
	Rate        float64 // messages a second completed
	StartedAt   time.Time
	HeartbeatAt time.Time
}

// QueueInstances returns the running instances of a queue's endpoint. Locks nothing; reads the whole table, which is small.
func (s queueQueries) QueueInstances(ctx context.Context, db DBTX, queue string) ([]QueueInstance, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT i.id, i.host, i.pid, i.version, i.concurrency, i.in_hand, i.rate::float8, i.started_at, i.heartbeat_at
		FROM %s i WHERE i.endpoint = $1::text AND `+lives+` ORDER BY i.id`, s.table("instance")), queue)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[QueueInstance])
}
