package query

import (
	"context"
	"fmt"
	"time"
)

// Taken is what one batch took out of a queue.
type Taken struct {
	N      int64
	Looked int64 // rows that it looked at
	Last   int64 // the seq that it came to; 0: it saw nothing
	More   bool  // the bytes kept it from taking more
}

// stored is the size of a message's body and headers as they are stored, which is known without reading them.
const stored = `pg_column_size(body)::bigint + coalesce(pg_column_size(headers), 0)`

// picking is the beginning of a statement that takes messages out of a queue: the rows of picked, locked. Its parameters are
// after, up to, how many to look at, how many to take and their bytes, in the first five places; result is an SQL expression
// for the columns of Taken without N. Rows that others hold are passed over. Relies on the queue's primary key.
func (s readyQueries) picking(queue string, f Filter, span Span) (with, result string, args []any) {
	indexed, scanned, args := s.where(filteredReady, f, span.After, span.UpTo, span.Look, span.Want, span.Bytes)
	with = fmt.Sprintf(`
		WITH looked AS MATERIALIZED (
			SELECT count(*) AS n, coalesce(max(seq), 0) AS last FROM (
				SELECT seq FROM %[1]s WHERE seq > $1::bigint AND seq <= $2::bigint ORDER BY seq LIMIT $3::bigint) c
		), locked AS MATERIALIZED (
			SELECT seq, %[4]s AS size FROM %[1]s WHERE seq > $1::bigint AND seq <= (SELECT last FROM looked) AND (%[2]s) AND (%[3]s)
			ORDER BY seq LIMIT $4::bigint FOR UPDATE SKIP LOCKED
		), picked AS MATERIALIZED (
			SELECT seq FROM (SELECT seq, sum(size) OVER (ORDER BY seq) - size < $5::bigint AS fits FROM locked) l WHERE fits
		)`, s.ready(queue), indexed, scanned, stored)
	return with, `(SELECT n FROM looked),
			(SELECT CASE WHEN count(*) >= $4::bigint OR count(*) < (SELECT count(*) FROM locked) THEN max(seq) ELSE (SELECT last FROM looked) END FROM picked),
			(SELECT count(*) FROM picked) < (SELECT count(*) FROM locked)`, args
}

// PurgeReady removes ready messages of a span that a filter chooses, the oldest first. Messages that a receiver holds are
// passed over. Relies on the queue's primary key.
func (s readyQueries) PurgeReady(ctx context.Context, db DBTX, queue string, f Filter, span Span) (Taken, error) {
	with, result, args := s.picking(queue, f, span)
	var t Taken
	err := db.QueryRow(ctx, with+fmt.Sprintf(`, gone AS (
			DELETE FROM %s q USING picked p WHERE q.seq = p.seq RETURNING 1
		)
		SELECT count(*), %s FROM gone`, s.ready(queue), result), args...).Scan(&t.N, &t.Looked, &t.Last, &t.More)
	return t, err
}

// MoveReady moves ready messages of a span that a filter chooses to another queue, the oldest first, and returns the channel to
// notify after the commit, "" for none. It is one statement: a message is in one of the queues, whatever happens, and bodies
// stay inside the server. Messages that a receiver holds are passed over. Relies on the queue's primary key.
func (s readyQueries) MoveReady(ctx context.Context, db DBTX, from, to string, f Filter, span Span) (t Taken, channel string, err error) {
	with, result, args := s.picking(from, f, span)
	var c *string
	err = db.QueryRow(ctx, with+fmt.Sprintf(`, gone AS (
			DELETE FROM %s q USING picked p WHERE q.seq = p.seq RETURNING q.*
		), stored AS (
			INSERT INTO %s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT id, sent_at, expires_at, attempt, type, headers, body FROM gone ORDER BY seq RETURNING 1
		)
		SELECT count(*), %s, CASE WHEN count(*) > 0 THEN %s END FROM stored`, s.ready(from), s.ready(to), result, s.asleep(to)), args...).
		Scan(&t.N, &t.Looked, &t.Last, &t.More, &c)
	return t, deref(c), err
}

// LastDelayed returns the highest seq that the delayed table has given out.
func (s readyQueries) LastDelayed(ctx context.Context, db DBTX) (seq int64, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.lastSeq(s.table("delayed"))).Scan(&seq)
	return seq, err
}

// PurgeDelayed looks at up to look delayed messages of all queues that come after a place and removes those of one
// queue with seq <= upTo that a filter chooses, no more than so many bytes, but one at least. It returns how many it removed
// and the place it came to, nil at the end. Messages that are being moved are passed over. Relies on the primary key; there is no index by queue, so it
// reads the whole table in the end.
func (s readyQueries) PurgeDelayed(ctx context.Context, db DBTX, queue string, f Filter, after DelayedKey, upTo int64, look int, bytes int64) (n int64, next *DelayedKey, err error) {
	f.Queue = queue
	indexed, scanned, args := s.where(filteredDelayed, f, after.DueAt, after.Seq, upTo, look, bytes)
	var due *time.Time
	var seq *int64
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH last AS MATERIALIZED (
			SELECT due_at, seq FROM (
				SELECT due_at, seq FROM %[1]s WHERE (due_at, seq) > ($1::timestamptz, $2::bigint) ORDER BY due_at, seq LIMIT $4::bigint) c
			ORDER BY due_at DESC, seq DESC LIMIT 1
		), locked AS MATERIALIZED (
			SELECT due_at, seq, %[4]s AS size FROM %[1]s
			WHERE (due_at, seq) > ($1::timestamptz, $2::bigint) AND (due_at, seq) <= (SELECT due_at, seq FROM last)
				AND seq <= $3::bigint AND (%[2]s) AND (%[3]s)
			ORDER BY due_at, seq FOR UPDATE SKIP LOCKED
		), picked AS MATERIALIZED (
			SELECT due_at, seq FROM (SELECT due_at, seq, sum(size) OVER (ORDER BY due_at, seq) - size < $5::bigint AS fits FROM locked) l WHERE fits
		), came AS (
			SELECT due_at, seq FROM last WHERE (SELECT count(*) FROM picked) = (SELECT count(*) FROM locked)
			UNION ALL
			(SELECT due_at, seq FROM picked WHERE (SELECT count(*) FROM picked) < (SELECT count(*) FROM locked) ORDER BY due_at DESC, seq DESC LIMIT 1)
		), gone AS (
			DELETE FROM %[1]s d USING picked p WHERE d.due_at = p.due_at AND d.seq = p.seq RETURNING 1
		)
		SELECT (SELECT count(*) FROM gone), (SELECT due_at FROM came), (SELECT seq FROM came)`, s.table("delayed"), indexed, scanned, stored),
		args...).Scan(&n, &due, &seq)
	if err == nil && due != nil {
		next = &DelayedKey{DueAt: *due, Seq: *seq}
	}
	return n, next, err
}
