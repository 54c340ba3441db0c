package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// soon is how close a due time must be for the movers to be told: they look by themselves once a second.
const soon = 2 * time.Second

// dueAt is the due time of a delayed message: $1 at a fixed time or $2 microseconds from now, never in the past.
const dueAt = `greatest(coalesce($1::timestamptz, clock_timestamp() + $2::bigint * interval '1 microsecond'), clock_timestamp())`

// Defer stores one delayed message, in the caller's transaction or alone: for a queue, or, where queue is "", a copy for
// each queue that is subscribed to its type at this moment. When the message is due soon the movers must be told: with
// notify that is part of the transaction, else it returns the channel to notify after the commit. It passes single
// values only, which every driver can.
func (s *Schema) Defer(ctx context.Context, db Querier, queue string, m Outgoing, notify bool) (channel string, err error) {
	sql, args := s.deferring(queue, m, notify)
	var c *string
	err = db.QueryRow(ctx, sql, args...).Scan(&c)
	return deref(c), err
}

// QueueDefer is Defer as part of a round trip; then gets the channel to notify after the commit.
func (s *Schema) QueueDefer(b *pgx.Batch, queue string, m Outgoing, then func(channel string)) {
	sql, args := s.deferring(queue, m, false)
	b.Queue(sql, args...).QueryRow(func(row pgx.Row) error {
		var c *string
		if err := row.Scan(&c); err != nil {
			return err
		}
		then(deref(c))
		return nil
	})
}

func (s *Schema) deferring(queue string, m Outgoing, notify bool) (sql string, args []any) {
	// queue_table refuses a queue that does not exist, as the insert into its table would.
	to, queues := queue, fmt.Sprintf(`SELECT $7::text WHERE %s($7::text) IS NOT NULL`, s.table("queue_table"))
	if queue == "" {
		to, queues = m.Type, fmt.Sprintf(`SELECT s.queue FROM %s s WHERE s.type = $7::text`, s.table("subscription"))
	}
	sql = fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %[1]s (due_at, id, expires_at, why, type, headers, body, queue)
			SELECT %[2]s, $3::uuid, clock_timestamp() + $4::bigint * interval '1 microsecond', 'delay', $5::text, $6::json, $8::bytea, queues.name
			FROM (%[3]s) AS queues (name)
		)
		SELECT CASE WHEN %[2]s < clock_timestamp() + interval '%[4]d milliseconds'
			THEN CASE WHEN $9::boolean THEN pg_notify('sqlq_' || %[5]s::regclass::oid, '')::text ELSE 'sqlq_' || %[5]s::regclass::oid END END`,
		s.table("delayed"), dueAt, queues, soon.Milliseconds(), quote(s.table("delayed")))
	return sql, []any{timeOrNil(m.DueAt), m.Delay.Microseconds(), uuidText(m.ID), micros(m.TTL), m.Type, m.headers(), to, m.Body, notify}
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Due is a group of delayed messages whose time has come, locked.
type Due struct {
	Queue   string
	Orphan  bool // the queue does not exist any more
	DueAt   []time.Time
	Seqs    []int64
	LastDue time.Time // the latest of DueAt
}

// PickDue locks up to limit messages that are due, those due first, and returns them by queue. Rows that others hold
// are passed over. It looks from a due time on, so that it need not step over the dead entries of messages moved before.
// Relies on the primary key.
func (s *Schema) PickDue(ctx context.Context, db DBTX, from time.Time, limit int) ([]Due, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH picked AS MATERIALIZED (
			SELECT due_at, seq, queue FROM %s
			WHERE due_at >= $1 AND due_at <= statement_timestamp()
			ORDER BY due_at, seq LIMIT $2 FOR UPDATE SKIP LOCKED
		)
		SELECT queue, to_regclass(quote_ident(%s) || '.' || quote_ident('q_' || queue)) IS NULL,
			array_agg(due_at ORDER BY due_at, seq), array_agg(seq ORDER BY due_at, seq), max(due_at)
		FROM picked GROUP BY queue ORDER BY queue`, s.table("delayed"), quote(s.name)), from, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Due])
}

// MoveDue moves picked messages to their queue, in order of their due times, and returns the channel to notify after
// the commit; "" when no receiver of the queue sleeps. Bodies stay inside the server.
func (s *Schema) MoveDue(ctx context.Context, db DBTX, d Due) (channel string, err error) {
	var c *string
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH taken AS (
			DELETE FROM %[1]s d USING unnest($1::timestamptz[], $2::bigint[]) AS k (due_at, seq)
			WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
		), stored AS (
			INSERT INTO %[2]s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT id, sent_at, expires_at, attempt, type, headers, body FROM taken ORDER BY due_at, seq
		)
		SELECT %[3]s`, s.table("delayed"), s.ready(d.Queue), s.asleep(d.Queue)), d.DueAt, d.Seqs).Scan(&c)
	return deref(c), err
}

// FailDue moves picked messages whose queue is gone to the error table, so that they neither block others nor vanish.
func (s *Schema) FailDue(ctx context.Context, db DBTX, d Due) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		WITH taken AS (
			DELETE FROM %[1]s d USING unnest($1::timestamptz[], $2::bigint[]) AS k (due_at, seq)
			WHERE d.due_at = k.due_at AND d.seq = k.seq RETURNING d.*
		)
		INSERT INTO %[2]s (id, queue, endpoint, host, type, headers, body, attempts, sent_at, expires_at,
			first_failed_at, error_type, message, fingerprint)
		SELECT id, queue, queue, '', type, headers, body, attempt, sent_at, expires_at, clock_timestamp(), 'NoQueue',
			'queue ' || to_json(queue) || ' does not exist any more: create it and replay, or delete the message', 'no-queue'
		FROM taken ORDER BY due_at, seq`, s.table("delayed"), s.table("error")), d.DueAt, d.Seqs)
	return err
}

// NextDue returns how long it is until the next delayed message from a due time on is due, 0 when it is overdue; false
// when there is none. Relies on the primary key.
func (s *Schema) NextDue(ctx context.Context, db DBTX, from time.Time) (time.Duration, bool, error) {
	var us *int64
	err := db.QueryRow(ctx, fmt.Sprintf(`
		SELECT (extract(epoch FROM (SELECT due_at FROM %s WHERE due_at >= $1 ORDER BY due_at LIMIT 1) - clock_timestamp()) * 1000000)::bigint`,
		s.table("delayed")), from).Scan(&us)
	if err != nil || us == nil {
		return 0, false, err
	}
	return max(0, time.Duration(*us)*time.Microsecond), true, nil
}
