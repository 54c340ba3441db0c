package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Instances are the endpoints that processes run, each with its heartbeat.
type Instances struct{ base }

// Instance is what a process says of itself when it begins to handle an endpoint's messages.
type Instance struct {
	Endpoint    string
	Host        string
	PID         int
	Version     string
	Concurrency int
	SessionLock bool  // connections of its process will hold the lock of TryAlive
	Process     int32 // the number of that lock; 0: the instance's own
	LeaseTime   time.Duration
}

// Register adds an instance and returns its number. Locks nothing.
func (s Instances) Register(ctx context.Context, db DBTX, i Instance) (id int32, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		INSERT INTO %s (endpoint, host, pid, version, concurrency, session_lock, process, lease_time)
		VALUES ($1, $2, $3, $4, $5, $6, nullif($7::int, 0), $8::bigint * interval '1 microsecond') RETURNING id`, s.table("instance")),
		i.Endpoint, i.Host, i.PID, i.Version, i.Concurrency, i.SessionLock, i.Process, i.LeaseTime.Microseconds()).Scan(&id)
	return id, err
}

// aliveKeys is the advisory lock of a process: by the instance table's OID, so schemas do not meet, and the number of the
// first instance that the process registered. Number 0 is the lock of the process that leads.
func (s base) aliveKeys(number string) string {
	return fmt.Sprintf(`(%s::regclass::oid::bigint - 2147483648)::int, %s`, quote(s.table("instance")), number)
}

// TryAlive tries to take the shared session lock that shows that a process lives, and says whether it has it; taken twice it
// must be given back twice. While any connection of the process holds it, its instances are not taken for dead before
// their heartbeat is too old. It is refused while somebody else has the lock to himself: for a moment whoever marks the dead.
func (s Instances) TryAlive(ctx context.Context, db DBTX, process int32) (taken bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT pg_try_advisory_lock_shared(%s)`, s.aliveKeys("$1")), process).Scan(&taken)
	return taken, err
}

// Heartbeat says that the instances live and appends to into those of them that are still taken for alive: an instance
// that was thought dead has lost its leases and must register anew. Locks their rows. Relies on the primary key.
func (s Instances) Heartbeat(b *pgx.Batch, ids []int32, into *[]int32) {
	b.Queue(fmt.Sprintf(`
		UPDATE %s SET heartbeat_at = clock_timestamp()
		WHERE id = ANY ($1::int[]) AND crashed_at IS NULL RETURNING id`, s.table("instance")), ids).Query(func(rows pgx.Rows) error {
		alive, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		*into = append(*into, alive...)
		return err
	})
}

// Counters are what an instance has done, and is doing.
type Counters struct {
	ID      int32
	Handled int64 // since it began
	Failed  int64 // likewise: also what is retried later
	Expired int64 // likewise
	InHand  int   // handlers that run
	Rate    float32
	Slow    int           // handlers that run for longer than they should
	Slowest time.Duration // the longest that one of them has run; 0: none runs
}

// counted are the columns of the counters, and counters the rows that go into them: those of countersOf.
const (
	counted  = `handled = c.handled, failed = c.failed, in_hand = c.in_hand, rate = c.rate, slow = c.slow, slowest = c.slowest * interval '1 microsecond', expired = c.expired`
	counters = `unnest($1::int[], $2::bigint[], $3::bigint[], $4::int[], $5::real[], $6::int[], $7::bigint[], $8::bigint[]) c (id, handled, failed, in_hand, rate, slow, slowest, expired)`
)

func countersOf(all []Counters) []any {
	n := len(all)
	ids, handled, failed, inHand := make([]int32, n), make([]int64, n), make([]int64, n), make([]int32, n)
	rates, slow, slowest, expired := make([]float32, n), make([]int32, n), make([]*int64, n), make([]int64, n)
	for i, c := range all {
		ids[i], handled[i], failed[i], inHand[i] = c.ID, c.Handled, c.Failed, int32(c.InHand)
		rates[i], slow[i], slowest[i], expired[i] = c.Rate, int32(c.Slow), micros(c.Slowest), c.Expired
	}
	return []any{ids, handled, failed, inHand, rates, slow, slowest, expired}
}

// CountingHeartbeat is Heartbeat, and writes the counters of the instances down. It takes privileges on more columns.
func (s Instances) CountingHeartbeat(b *pgx.Batch, all []Counters, into *[]int32) {
	b.Queue(fmt.Sprintf(`
		UPDATE %s i SET heartbeat_at = clock_timestamp(), %s FROM %s
		WHERE i.id = c.id AND i.crashed_at IS NULL RETURNING i.id`, s.table("instance"), counted, counters), countersOf(all)...).Query(func(rows pgx.Rows) error {
		alive, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		*into = append(*into, alive...)
		return err
	})
}

// Crash is the latest crash of an instance of an endpoint.
type Crash struct {
	Endpoint string
	At       time.Time
}

// Crashes appends the latest crash of each endpoint, if it was within a time, to into. Locks nothing; reads the whole
// table, which is small.
func (s Instances) Crashes(b *pgx.Batch, endpoints []string, within time.Duration, into *[]Crash) {
	b.Queue(fmt.Sprintf(`
		SELECT endpoint, max(crashed_at) FROM %s
		WHERE crashed_at > clock_timestamp() - $2::bigint * interval '1 microsecond' AND endpoint = ANY ($1::text[])
		GROUP BY endpoint`, s.table("instance")), endpoints, within.Microseconds()).Query(func(rows pgx.Rows) error {
		crashes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Crash])
		*into = append(*into, crashes...)
		return err
	})
}

// Drained records that the instances ended in order. Locks their rows. Relies on the primary key.
func (s Instances) Drained(ctx context.Context, db DBTX, ids []int32) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`UPDATE %s SET drained_at = clock_timestamp() WHERE id = ANY ($1::int[]) AND crashed_at IS NULL`,
		s.table("instance")), ids)
	return err
}

// CountingDrained is Drained, and writes the last counters of the instances down.
func (s Instances) CountingDrained(ctx context.Context, db DBTX, all []Counters) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s i SET drained_at = clock_timestamp(), %s FROM %s WHERE i.id = c.id AND i.crashed_at IS NULL`,
		s.table("instance"), counted, counters), countersOf(all)...)
	return err
}

// Dead is an instance that was found dead.
type Dead struct {
	ID       int32
	Endpoint string
	Host     string
	PID      int
	At       time.Time // of the mark
}

// MarkDead records instances as crashed that did not end in order and whose heartbeat is too old, or whose process's session
// lock nobody holds; it returns them. Those of the caller are left out, because its own session cannot see its own lock. To a
// young session a free lock means little: the server may just have been restarted or failed over, and the others may be
// about to come back. It then counts only with a heartbeat that is two thirds of the way to being too old.
func (s Instances) MarkDead(ctx context.Context, db DBTX, own []int32, young bool) ([]Dead, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		UPDATE %[1]s SET crashed_at = clock_timestamp()
		WHERE id IN (
			SELECT id FROM %[1]s
			WHERE drained_at IS NULL AND crashed_at IS NULL AND id <> ALL ($1::int[])
				AND (heartbeat_at < clock_timestamp() - lease_time
					OR (session_lock AND (NOT $2::boolean OR heartbeat_at < clock_timestamp() - lease_time * 2 / 3)
						AND pg_try_advisory_xact_lock(%[2]s)))
			FOR UPDATE SKIP LOCKED)
		RETURNING id, endpoint, host, pid, crashed_at`, s.table("instance"), s.aliveKeys("coalesce(process, id)")), own, young)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Dead])
}

// Doubtful returns the endpoints of which an instance may have crashed: its process's session lock is free, though it may be too
// early to take it for dead.
func (s Instances) Doubtful(ctx context.Context, db DBTX, own []int32) ([]string, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT DISTINCT endpoint FROM %s
		WHERE drained_at IS NULL AND crashed_at IS NULL AND id <> ALL ($1::int[]) AND session_lock AND pg_try_advisory_xact_lock(%s)`,
		s.table("instance"), s.aliveKeys("coalesce(process, id)")), own)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Forget removes the records of instances that ended more than a day ago. Locks those; reads the whole table,
// which is small.
func (s Instances) Forget(ctx context.Context, db DBTX) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		DELETE FROM %s WHERE coalesce(drained_at, crashed_at) < clock_timestamp() - interval '1 day'`, s.table("instance")))
	return err
}

// EndListeners ends the sessions of this role, named as application, that hold the locks of the instances' processes: a
// frozen process must not go on keeping the watch over its queues.
func (s Instances) EndListeners(ctx context.Context, db DBTX, application string, instances []int32) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND (classid, objid) IN (SELECT k[1]::oid, k[2]::oid FROM %s i, LATERAL (SELECT ARRAY[%s]) keys (k) WHERE i.id = ANY ($1::int[]))
			AND application_name = $2 AND usename = current_user`, s.table("instance"), s.aliveKeys("coalesce(i.process, i.id)")), instances, application)
	return err
}
