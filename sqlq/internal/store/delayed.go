package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Delayed are the messages whose time has not come.
type Delayed struct{ base }

// soon is how close a due time must be for the movers to be told: they look by themselves once a second.
const soon = 2 * time.Second

// dueAt is the due time of a delayed message: $1 at a fixed time or $2 microseconds from now, never in the past.
const dueAt = `greatest(coalesce($1::timestamptz, clock_timestamp() + $2::bigint * interval '1 microsecond'), clock_timestamp())`

// Defer stores one delayed message, in the caller's transaction or alone: for a queue, or, where queue is "", a copy for
// each queue that is subscribed to its type at this moment. When the message is due soon the movers must be told: with
// notify that is part of the transaction. It returns the number of copies, and passes single values only, which every driver
// can.
func (s Delayed) Defer(ctx context.Context, db Querier, queue string, m Outgoing, notify bool) (copies int, err error) {
	sql, args := s.deferring(queue, m, notify)
	var c *string
	err = db.QueryRow(ctx, sql, args...).Scan(&copies, &c)
	return copies, err
}

// QueueDefer is Defer as part of a round trip; then gets the channel to notify after the commit, stored the number of copies, if it is
// not nil.
func (s Delayed) QueueDefer(b *pgx.Batch, queue string, m Outgoing, then func(channel string), stored func(copies int)) {
	sql, args := s.deferring(queue, m, false)
	b.Queue(sql, args...).QueryRow(scanPublished(then, stored))
}

// QueueDeferMany is QueueDefer for several commands to one queue. Locks nothing.
func (s Delayed) QueueDeferMany(b *pgx.Batch, queue string, ms []Outgoing, then func(channel string)) {
	c := columnsOf(ms)
	b.Queue(fmt.Sprintf(`
		WITH due AS (
			SELECT greatest(coalesce(m.due_at, clock_timestamp() + m.delay * interval '1 microsecond'), clock_timestamp()) AS at, m.*
			FROM unnest($1::timestamptz[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::bytea[])
				WITH ORDINALITY AS m (due_at, delay, id, ttl, type, headers, body, n)
			WHERE %[2]s($8::text) IS NOT NULL
		), stored AS (
			INSERT INTO %[1]s (due_at, id, expires_at, why, type, headers, body, queue)
			SELECT d.at, d.id, clock_timestamp() + d.ttl * interval '1 microsecond', 'delay', d.type, d.headers::json, d.body, $8::text
			FROM due d ORDER BY d.n
		)
		SELECT CASE WHEN min(at) < clock_timestamp() + interval '%[3]d milliseconds' THEN 'sqlq_' || %[4]s::regclass::oid END FROM due`,
		s.table("delayed"), s.table("queue_table"), soon.Milliseconds(), quote(s.table("delayed"))),
		append(dueTimes(ms), c.ids, c.ttls, c.types, c.headers, c.bodies, queue)...).QueryRow(scanChannel(then))
}

// QueueDeferEvents is QueueDefer for several events. stored gets the number of copies of all of them together.
func (s Delayed) QueueDeferEvents(b *pgx.Batch, ms []Outgoing, then func(channel string), stored func(copies int)) {
	c := columnsOf(ms)
	b.Queue(fmt.Sprintf(`
		SELECT coalesce(sum(copies), 0)::bigint, max(channel) FROM %s($3::uuid[], $5::text[], $6::text[], $7::bytea[],
			(SELECT array_agg(u.ttl * interval '1 microsecond' ORDER BY u.n) FROM unnest($4::bigint[]) WITH ORDINALITY u (ttl, n)),
			due_at => (SELECT array_agg(coalesce(u.due_at, clock_timestamp() + u.delay * interval '1 microsecond') ORDER BY u.n)
				FROM unnest($1::timestamptz[], $2::bigint[]) WITH ORDINALITY u (due_at, delay, n)))`,
		s.table("publish_batch")),
		append(dueTimes(ms), c.ids, c.ttls, c.types, c.headers, c.bodies)...).QueryRow(scanPublished(then, stored))
}

// dueTimes are the due times of messages turned on their side, and for those that have none the delays in microseconds.
func dueTimes(ms []Outgoing) []any {
	at, delays := make([]*time.Time, len(ms)), make([]*int64, len(ms))
	for i := range ms {
		at[i], delays[i] = timeOrNil(ms[i].DueAt), micros(ms[i].Delay)
	}
	return []any{at, delays}
}

func (s Delayed) deferring(queue string, m Outgoing, notify bool) (sql string, args []any) {
	args = []any{timeOrNil(m.DueAt), m.Delay.Microseconds(), uuidText(m.ID), micros(m.TTL), m.Type, m.headers(), m.Body, notify}
	if queue == "" {
		return fmt.Sprintf(`
		SELECT c.copies, CASE WHEN c.channel IS NOT NULL AND $8::boolean THEN pg_notify(c.channel, '')::text ELSE c.channel END
		FROM (SELECT coalesce(sum(copies), 0)::bigint, max(channel) FROM %s(ARRAY[$3::uuid], ARRAY[$5::text], ARRAY[$6::text], ARRAY[$7::bytea], ARRAY[$4::bigint * interval '1 microsecond'],
			due_at => ARRAY[%s])) AS c (copies, channel)`,
			s.table("publish_batch"), dueAt), args
	}
	// queue_table refuses a queue that does not exist, as the insert into its table would.
	return fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %[1]s (due_at, id, expires_at, why, type, headers, body, queue)
			SELECT %[2]s, $3::uuid, clock_timestamp() + $4::bigint * interval '1 microsecond', 'delay', $5::text, $6::json, $7::bytea, $9::text
			WHERE %[3]s($9::text) IS NOT NULL
		)
		SELECT 1::bigint, CASE WHEN %[2]s < clock_timestamp() + interval '%[4]d milliseconds'
			THEN CASE WHEN $8::boolean THEN pg_notify('sqlq_' || %[5]s::regclass::oid, '')::text ELSE 'sqlq_' || %[5]s::regclass::oid END END`,
		s.table("delayed"), dueAt, s.table("queue_table"), soon.Milliseconds(), quote(s.table("delayed"))), append(args, queue)
}

// Moved is what became of the delayed messages of a queue that were due.
type Moved struct {
	Queue   string
	N       int       // 0: somebody has the queue's table for long
	Bytes   int64     // of bodies and headers, as they are stored
	More    bool      // there was more than the bytes allow
	LastDue time.Time // the latest due time among them
	Channel string    // to notify after the commit; "": no receiver of the queue sleeps
}

// MoveDue moves up to rows messages that are due, those due first, to their queues, and those whose queue is gone or does not
// take them to the error table: no more than so many bytes, but one at least. It is about all queues
// but some, or, apart, about those only. Rows that others hold are passed over. It looks from a due time on, so that it need not step over the
// dead entries of messages moved before; the zero time is before all. Bodies stay inside the server, and it is done as the owner
// of the schema: the process that leads may have no right to the queues of others. Relies on the primary key.
func (s Delayed) MoveDue(ctx context.Context, db DBTX, from time.Time, rows int, bytes int64, queues []string, apart bool) ([]Moved, error) {
	found, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, moved, size, more, greatest(last_due, timestamptz 'epoch'), coalesce(channel, '')
		FROM %s($1::timestamptz, $2::bigint, $3::bigint, $4::text[], $5::boolean)`, s.table("move_due")),
		orEver(from), rows, bytes, nonNil(queues), apart)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowToStructByPos[Moved])
}

// NextDue returns how long it is until the next delayed message from a due time on is due, of the queues that are not left
// aside, and its queue: 0 when it is overdue, an hour at most; false when there is none. Relies on the primary key.
func (s Delayed) NextDue(ctx context.Context, db DBTX, from time.Time, aside []string) (wait time.Duration, queue string, any bool, err error) {
	var us *int64
	var name *string
	// A due time may have no end, with which nothing can be reckoned.
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT CASE WHEN due_at <= clock_timestamp() THEN 0 WHEN due_at > clock_timestamp() + interval '1 hour' THEN 3600000000
			ELSE (extract(epoch FROM due_at - clock_timestamp()) * 1000000)::bigint END, queue
		FROM %s($1::timestamptz, $2::text[])`, s.table("next_due")), orEver(from), nonNil(aside)).Scan(&us, &name)
	if err != nil || us == nil {
		return 0, "", false, err
	}
	return max(0, time.Duration(*us)*time.Microsecond), deref(name), true, nil
}

// orEver is a time as a parameter; the zero time is before all others.
func orEver(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	return pgtype.Timestamptz{Time: t, Valid: true}
}
