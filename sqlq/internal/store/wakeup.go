package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Wakeups are what receivers sleep with, and what wakes them.
type Wakeups struct{ base }

// sleepers is the first key of the advisory locks (sleepers, queue_lock_key) that sleeping receivers hold shared. The
// second comes from the OID of the queue's table, so schemas and re-created queues do not meet.
const sleepers = 1936813169

// asleep is an SQL expression: the channel to notify when a receiver of the queue sleeps, else null. It stands in the
// statement that inserts, or after it: the insert's lock on the table is taken before the probe, so a receiver that is
// about to sleep either sees that lock or is seen by the probe. Between the two calls a statement cannot be cancelled, so
// the lock is never left behind; in two statements, or with a function in SQL or PL/pgSQL between them, it would be.
func (s base) asleep(queue string) string {
	table := quote(s.ready(queue)) + `::regclass::oid`
	key := fmt.Sprintf(`%d, (%s::bigint - 2147483648)::int`, sleepers, table)
	return fmt.Sprintf(`CASE WHEN pg_try_advisory_lock(%[1]s) THEN CASE WHEN pg_advisory_unlock(%[1]s) THEN NULL END
			ELSE 'sqlq_' || %[2]s END`, key, table)
}

// scanChannel hands the channel in a row to then; "" for null.
func scanChannel(then func(channel string)) func(pgx.Row) error {
	return func(row pgx.Row) error {
		var channel *string
		if err := row.Scan(&channel); err != nil {
			return err
		}
		then(deref(channel))
		return nil
	}
}

// Notify wakes the receivers that listen on the channels. Run it outside of every transaction that writes: NOTIFY
// makes commits wait for one another across the whole server.
func (s Wakeups) Notify(ctx context.Context, db DBTX, channels []string) error {
	_, err := db.Exec(ctx, `SELECT pg_notify(c, '') FROM unnest($1::text[]) c`, channels)
	return err
}

// SetAsleep tries to take the sleeper's lock of each table, shared, for the session, and appends to raised whether it has
// it. From its return on, senders that insert into one of those queues notify its channel. It is refused while somebody has
// the lock to himself: a sender that probes, for microseconds, or whoever else took it.
func (s Wakeups) SetAsleep(b *pgx.Batch, tables []TableID, raised *[]bool) {
	b.Queue(`
		SELECT array_agg(pg_try_advisory_lock_shared($1, t.k) ORDER BY t.n) FROM unnest($2::int[]) WITH ORDINALITY t (k, n)`,
		sleepers, lockKeys(tables)).QueryRow(func(row pgx.Row) error { return row.Scan(raised) })
}

// SetAwake gives the sleeper's locks back.
func (s Wakeups) SetAwake(b *pgx.Batch, tables []TableID) {
	b.Queue(`SELECT pg_advisory_unlock_shared($1, k) FROM unnest($2::int[]) k`, sleepers, lockKeys(tables))
}

// watchers is the first key of the advisory locks of those who keep the watch over a queue, one session each.
const watchers = sleepers + 1

// TakeWatch tries to take the watch over each table's queue for the session, and says of each whether it has it. Taken
// twice it must be left twice.
func (s Wakeups) TakeWatch(ctx context.Context, db DBTX, tables []TableID) (taken []bool, err error) {
	err = db.QueryRow(ctx, `
		SELECT array_agg(pg_try_advisory_lock($1, t.k) ORDER BY t.n) FROM unnest($2::int[]) WITH ORDINALITY t (k, n)`,
		watchers, lockKeys(tables)).Scan(&taken)
	return taken, err
}

// LeaveWatch gives the watch over queues back.
func (s Wakeups) LeaveWatch(b *pgx.Batch, tables []TableID) {
	b.Queue(`SELECT pg_advisory_unlock($1, k) FROM unnest($2::int[]) k`, watchers, lockKeys(tables))
}

// Call wakes all receivers of queues, whoever has the watch. Run it outside of every transaction that writes.
func (s Wakeups) Call(ctx context.Context, db DBTX, tables []TableID) error {
	channels := make([]string, len(tables))
	for i, t := range tables {
		channels[i] = t.CallChannel()
	}
	return s.Notify(ctx, db, channels)
}

func lockKeys(tables []TableID) []int32 {
	keys := make([]int32, len(tables))
	for i, t := range tables {
		keys[i] = t.lockKey()
	}
	return keys
}

// Wake wakes all receivers of queues, for messages that have become free without an insert. Queues that are gone
// have none.
func (s Wakeups) Wake(ctx context.Context, db DBTX, queues []string) error {
	if len(queues) == 0 {
		return nil
	}
	tables, err := Tables(s).Ready(ctx, db, queues)
	if err != nil {
		return err
	}
	return s.Call(ctx, db, tables)
}
