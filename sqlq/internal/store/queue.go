package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// CreateQueue makes a queue and says whether it was not there yet. Takes the advisory lock of queue DDL.
func (s *Schema) CreateQueue(ctx context.Context, db DBTX, name string) (made bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::text)`, s.table("create_queue")), name).Scan(&made)
	return made, err
}

// DropQueue removes a queue, with force also one that holds messages, and returns how many went with it. Takes the
// advisory lock of queue DDL and locks the queue's table against everyone.
func (s *Schema) DropQueue(ctx context.Context, db DBTX, name string, force bool) (removed int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::text, $2::boolean)`, s.table("drop_queue")), name, force).Scan(&removed)
	return removed, err
}

// TypeNames returns the event types that are subscribed and the types of failed messages. Locks nothing. Relies on the index
// (type, failed_at, seq) of the error table, of which it reads one entry a type.
func (s *Schema) TypeNames(ctx context.Context, db DBTX) ([]string, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH RECURSIVE f AS (
			(SELECT type FROM %[1]s ORDER BY type LIMIT 1)
			UNION ALL
			SELECT (SELECT e.type FROM %[1]s e WHERE e.type > f.type ORDER BY e.type LIMIT 1) FROM f WHERE f.type IS NOT NULL
		)
		SELECT type FROM f WHERE type IS NOT NULL UNION SELECT type FROM %[2]s ORDER BY 1`, s.table("error"), s.table("subscription")))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// QueueInfo is what the registry and the tables around it know of a queue, without counting.
type QueueInfo struct {
	CreatedAt  time.Time
	Subscribed []string // event types
	Instances  int      // of the endpoint, running
}

// QueueInfo returns what is known of a queue; pgx.ErrNoRows when there is none of that name. Locks nothing.
func (s *Schema) QueueInfo(ctx context.Context, db DBTX, name string) (QueueInfo, error) {
	var i QueueInfo
	err := db.QueryRow(ctx, fmt.Sprintf(`
		SELECT q.created_at,
			(SELECT coalesce(array_agg(s.type ORDER BY s.type), '{}') FROM %s s WHERE s.queue = q.name),
			(SELECT count(*) FROM %s i WHERE i.endpoint = q.name AND i.drained_at IS NULL AND i.crashed_at IS NULL)
		FROM %s q WHERE q.name = $1::text`, s.table("subscription"), s.table("instance"), s.table("queue")), name).
		Scan(&i.CreatedAt, &i.Subscribed, &i.Instances)
	return i, err
}

// LimitStatements ends every later statement of the transaction that runs longer than d, with SQLSTATE 57014.
func (s *Schema) LimitStatements(ctx context.Context, tx DBTX, d time.Duration) error {
	_, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', $1::text, true)`, fmt.Sprint(max(1, d.Milliseconds())))
	return err
}

// Counted is the outcome of a count that stops at a limit. N equal to the limit means: that many or more.
type Counted struct {
	Queue     string
	N         int64
	OldestAt  *time.Time     // when the oldest message among those counted was sent; nil: there is none, or it is not known
	OldestAge *time.Duration // how long ago that was
}

// CountReady counts the ready messages of each queue, held ones included, in order of arrival and up to a limit. Locks
// nothing. Relies on the queue's primary key: it reads up to limit rows of each queue, and steps over the dead entries in
// front of them, which can be slow when vacuum cannot run. Limit the statement.
func (s *Schema) CountReady(ctx context.Context, db DBTX, queues []string, limit int64) ([]Counted, error) {
	return s.countEach(ctx, db, queues, func(queue string) string {
		return fmt.Sprintf(`
		SELECT %s, count(*), min(sent_at), (extract(epoch FROM clock_timestamp() - min(sent_at)) * 1000000)::bigint
		FROM (SELECT sent_at FROM %s ORDER BY seq LIMIT %d) m`, quote(queue), s.ready(queue), limit)
	})
}

// CountFailed counts the failed messages of each queue up to a limit, archived ones left out. Locks nothing. Relies on
// the index (status, queue, seq).
func (s *Schema) CountFailed(ctx context.Context, db DBTX, queues []string, limit int64) ([]Counted, error) {
	return s.countEach(ctx, db, queues, func(queue string) string {
		return fmt.Sprintf(`
		SELECT %s, count(*), NULL::timestamptz, NULL::bigint
		FROM (SELECT FROM %s WHERE status = 'failed' AND queue = %[1]s LIMIT %[3]d) m`, quote(queue), s.table("error"), limit)
	})
}

// EstimateReady estimates the ready messages of each queue. It reads a sample of a thousand pages, or all of a smaller
// table, and besides the newest messages, which a sample of a bloated table can miss: a bounded effort, whatever the
// state of the table. Locks nothing.
func (s *Schema) EstimateReady(ctx context.Context, db DBTX, queues []string) ([]Counted, error) {
	return s.countEach(ctx, db, queues, func(queue string) string {
		return fmt.Sprintf(`
		SELECT %[1]s, greatest(m.n, newest.n), least(m.oldest, newest.oldest),
			(extract(epoch FROM clock_timestamp() - least(m.oldest, newest.oldest)) * 1000000)::bigint
		FROM (SELECT round(count(*) * %[3]s)::bigint AS n, min(sent_at) AS oldest FROM %[2]s) m,
			(SELECT count(*) AS n, min(sent_at) AS oldest FROM (
				SELECT sent_at FROM %[4]s WHERE seq > %[5]s - 20000 ORDER BY seq DESC LIMIT 10000
			) n) newest`,
			quote(queue), s.sample(s.ready(queue)), s.sampleScale(s.ready(queue)), s.ready(queue), s.lastSeq(s.ready(queue)))
	})
}

// countEach runs one statement that makes a row (queue, count, oldest, its age in microseconds) for each queue.
func (s *Schema) countEach(ctx context.Context, db DBTX, queues []string, count func(queue string) string) ([]Counted, error) {
	if len(queues) == 0 {
		return nil, nil
	}
	each := make([]string, len(queues))
	for i, queue := range queues {
		each[i] = count(queue)
	}
	// The text differs with the queues: preparing it would only fill caches.
	rows, err := db.Query(ctx, strings.Join(each, "\nUNION ALL"), pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanCounted)
}

func scanCounted(row pgx.CollectableRow) (Counted, error) {
	var c Counted
	var age *int64
	if err := row.Scan(&c.Queue, &c.N, &c.OldestAt, &age); err != nil {
		return Counted{}, err
	}
	if age != nil {
		d := time.Duration(*age) * time.Microsecond
		c.OldestAge = &d
	}
	return c, nil
}

// CountDelayed counts the delayed messages by queue, among the limit that are due first. The counts of all queues
// together equal the limit when there are that many or more. Locks nothing. Relies on the primary key.
func (s *Schema) CountDelayed(ctx context.Context, db DBTX, limit int64) ([]Counted, error) {
	return s.countByQueue(ctx, db, fmt.Sprintf(`SELECT queue FROM %s ORDER BY due_at, seq LIMIT %d`, s.table("delayed"), limit), `1`)
}

// CountLeased counts the leased messages by queue, among the first limit of them. The counts of all queues together
// equal the limit when there are that many or more. Locks nothing.
func (s *Schema) CountLeased(ctx context.Context, db DBTX, limit int64) ([]Counted, error) {
	return s.countByQueue(ctx, db, fmt.Sprintf(`SELECT queue FROM %s LIMIT %d`, s.table("leased"), limit), `1`)
}

// EstimateDelayed estimates the delayed messages by queue, from a sample of a thousand pages. Locks nothing.
func (s *Schema) EstimateDelayed(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("delayed")), s.sampleScale(s.table("delayed")))
}

// EstimateLeased estimates the leased messages by queue, from a sample of a thousand pages. Locks nothing.
func (s *Schema) EstimateLeased(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("leased")), s.sampleScale(s.table("leased")))
}

// EstimateFailed estimates the failed messages by queue, archived ones left out, from a sample of a thousand pages.
// Locks nothing.
func (s *Schema) EstimateFailed(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("error"))+` WHERE status = 'failed'`, s.sampleScale(s.table("error")))
}

func (s *Schema) countByQueue(ctx context.Context, db DBTX, from, scale string) ([]Counted, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, round(count(*) * %s)::bigint, NULL::timestamptz, NULL::bigint FROM (%s) m GROUP BY queue`, scale, from))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanCounted)
}

// pages is an SQL expression: the size of a table now, in pages. The planner's figure may be very old.
func (s *Schema) pages(table string) string {
	return fmt.Sprintf(`(pg_relation_size(%s) / current_setting('block_size')::bigint)`, quote(table))
}

// sample reads about a thousand pages of a table, all of them where it has no more.
func (s *Schema) sample(table string) string {
	return fmt.Sprintf(`%s TABLESAMPLE SYSTEM (least(100.0, 100000.0 / greatest(%s, 1)))`, table, s.pages(table))
}

// sampleScale is an SQL expression: by what to multiply a count of such a sample.
func (s *Schema) sampleScale(table string) string {
	return fmt.Sprintf(`greatest(1.0, %s / 1000.0)`, s.pages(table))
}

// lastSeq is an SQL expression: the highest number that the seq column of a table has given out; 0 before the first.
func (s *Schema) lastSeq(table string) string {
	return fmt.Sprintf(`coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'seq')::regclass), 0)`, quote(table))
}

// Peeked is a ready message that an operator looks at.
type Peeked struct {
	Seq       int64
	ID        string
	SentAt    time.Time
	ExpiresAt *time.Time // nil: never
	Attempt   int        // attempts already made
	Type      string
	Headers   json.RawMessage // nil: none
	Body      []byte
}

// Peek returns the first n ready messages of a queue in order, held ones included. Locks nothing. Relies on the queue's
// primary key.
func (s *Schema) Peek(ctx context.Context, db DBTX, queue string, n int) ([]Peeked, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT seq, id::text, sent_at, expires_at, attempt::int, type, headers::text, body
		FROM %s ORDER BY seq LIMIT $1::bigint`, s.ready(queue)), n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Peeked])
}

// LastReady returns the highest seq that a queue has given out. A message that is sent later has a higher one.
func (s *Schema) LastReady(ctx context.Context, db DBTX, queue string) (seq int64, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.lastSeq(s.ready(queue))).Scan(&seq)
	return seq, err
}

// PurgeReady removes up to limit ready messages with after < seq <= upTo, the oldest first, and returns how many and the
// seq of the last. Messages that a receiver holds are passed over. Relies on the queue's primary key.
func (s *Schema) PurgeReady(ctx context.Context, db DBTX, queue string, after, upTo int64, limit int) (n, last int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH picked AS MATERIALIZED (
			SELECT seq FROM %[1]s WHERE seq > $1::bigint AND seq <= $2::bigint
			ORDER BY seq LIMIT $3::bigint FOR UPDATE SKIP LOCKED
		), gone AS (
			DELETE FROM %[1]s q USING picked p WHERE q.seq = p.seq RETURNING q.seq
		)
		SELECT count(*), coalesce(max(seq), 0) FROM gone`, s.ready(queue)), after, upTo, limit).Scan(&n, &last)
	return n, last, err
}

// LastDelayed returns the highest seq that the delayed table has given out.
func (s *Schema) LastDelayed(ctx context.Context, db DBTX) (seq int64, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.lastSeq(s.table("delayed"))).Scan(&seq)
	return seq, err
}

// DelayedKey is a place in the order of the delayed messages.
type DelayedKey struct {
	DueAt time.Time
	Seq   int64
}

// PurgeDelayed looks at up to limit delayed messages of all queues that come after a place and removes those of one queue
// with seq <= upTo. It returns how many it removed and the place it came to, nil at the end. Messages that are being
// moved are passed over. Relies on the primary key; there is no index by queue, so it reads the whole table in the end.
func (s *Schema) PurgeDelayed(ctx context.Context, db DBTX, queue string, after DelayedKey, upTo int64, limit int) (n int64, next *DelayedKey, err error) {
	var due *time.Time
	var seq *int64
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH read AS MATERIALIZED (
			SELECT due_at, seq, queue FROM %[1]s WHERE (due_at, seq) > ($2::timestamptz, $3::bigint)
			ORDER BY due_at, seq LIMIT $5::bigint
		), picked AS MATERIALIZED (
			SELECT d.due_at, d.seq FROM %[1]s d JOIN read r ON d.due_at = r.due_at AND d.seq = r.seq
			WHERE r.queue = $1::text AND r.seq <= $4::bigint FOR UPDATE OF d SKIP LOCKED
		), gone AS (
			DELETE FROM %[1]s d USING picked p WHERE d.due_at = p.due_at AND d.seq = p.seq RETURNING 1
		), last AS (
			SELECT due_at, seq FROM read ORDER BY due_at DESC, seq DESC LIMIT 1
		)
		SELECT (SELECT count(*) FROM gone), (SELECT due_at FROM last), (SELECT seq FROM last)`, s.table("delayed")),
		queue, after.DueAt, after.Seq, upTo, limit).Scan(&n, &due, &seq)
	if err == nil && due != nil {
		next = &DelayedKey{DueAt: *due, Seq: *seq}
	}
	return n, next, err
}

func textOrNil(b []byte) *string {
	if b == nil {
		return nil
	}
	text := string(b)
	return &text
}
