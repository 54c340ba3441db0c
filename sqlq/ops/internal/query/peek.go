package query

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Peeked is a ready or delayed message that an operator looks at.
type Peeked struct {
	Seq       int64
	ID        string
	SentAt    time.Time
	ExpiresAt *time.Time // nil: never
	Attempt   int        // attempts already made
	Type      string
	Headers   json.RawMessage // nil: none
	Body      []byte
	DueAt     *time.Time // of a delayed one
	Why       string     // likewise: delay or retry
	Error     string     // likewise: what the last attempt failed with
}

// Span bounds one read of a table: the rows with After < seq <= UpTo, how many of them to look at, and how many messages and bytes
// of bodies to return. Descending, it begins at UpTo.
type Span struct {
	After, UpTo int64
	Look        int // rows to look at
	Want        int // rows to return
	Bytes       int // of bodies; the row that goes over it is still returned
	Descending  bool
	Bare        bool // without headers and bodies, which a role may not have to read then
}

// Looked is how far one look went.
type Looked struct {
	Rows int64 // looked at
	Last int64 // the seq of the last row looked at; 0: there was none
}

// ReadReady returns those messages of a span of a queue, held ones included, that a filter chooses, in order. When it
// returns Want of them or as many bytes as wanted, the look ended with the last of them, else at Looked.Last. Locks nothing.
// Relies on the queue's primary key; the filter looks at each row of the span.
func (s readyQueries) ReadReady(ctx context.Context, db DBTX, queue string, f Filter, span Span) (found []Peeked, looked Looked, err error) {
	indexed, scanned, args := s.where(filteredReady, f, span.After, span.UpTo, span.Look, span.Want, span.Bytes)
	columns, large, before := ``, `NULL::text, NULL::bytea`, `0`
	order, bound, within := `ASC`, `max`, `m.seq > $1::bigint AND m.seq <= l.last`
	if span.Descending {
		order, bound, within = `DESC`, `min`, `m.seq >= l.last AND m.seq <= $2::bigint`
	}
	if !span.Bare {
		columns, large = `, m.headers, m.body`, `m.headers::text, m.body`
		before = fmt.Sprintf(`sum(octet_length(m.body)) OVER (ORDER BY m.seq %s ROWS UNBOUNDED PRECEDING) - octet_length(m.body)`, order)
	}
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH looked AS MATERIALIZED (
			SELECT count(*) AS n, coalesce(%[3]s(seq), 0) AS last FROM (
				SELECT seq FROM %[1]s WHERE seq > $1::bigint AND seq <= $2::bigint ORDER BY seq %[2]s LIMIT $3::bigint) c
		)
		SELECT l.n, l.last, m.seq, m.id, m.sent_at, m.expires_at, m.attempt, m.type, m.headers, m.body
		FROM looked l LEFT JOIN LATERAL (
			SELECT m.seq, m.id::text, m.sent_at, m.expires_at, m.attempt::int, m.type, %[8]s, %[9]s
			FROM (
				SELECT m.seq, m.id, m.sent_at, m.expires_at, m.attempt, m.type%[7]s FROM %[1]s m
				WHERE %[4]s AND (%[5]s) AND (%[6]s) ORDER BY m.seq %[2]s LIMIT $4::bigint) m
		) m (seq, id, sent_at, expires_at, attempt, type, headers, body, before) ON m.before < $5::bigint
		ORDER BY m.seq %[2]s`, s.ready(queue), order, bound, within, indexed, scanned, columns, large, before), args...)
	if err != nil {
		return nil, Looked{}, err
	}
	defer rows.Close()
	for rows.Next() {
		var m Peeked
		var seq *int64
		var id, messageType *string
		var sentAt *time.Time
		var attempt *int
		if err := rows.Scan(&looked.Rows, &looked.Last, &seq, &id, &sentAt, &m.ExpiresAt, &attempt, &messageType, &m.Headers, &m.Body); err != nil {
			return nil, Looked{}, err
		}
		if seq != nil {
			m.Seq, m.ID, m.SentAt, m.Attempt, m.Type = *seq, *id, *sentAt, *attempt, *messageType
			found = append(found, m)
		}
	}
	return found, looked, rows.Err()
}

// ReadDelayedOf looks at up to look delayed messages of all queues that come after a place, with seq <= upTo, and returns those
// of one queue that a filter chooses, and the place it came to, nil at the end. It ends early with the message whose body
// brings their bodies together to so many bytes. Locks nothing. Relies on the primary key; there is no index by queue, so
// in the end it reads the whole table.
func (s readyQueries) ReadDelayedOf(ctx context.Context, db DBTX, queue string, f Filter, after DelayedKey, upTo int64, look, bytes int) (found []Peeked, next *DelayedKey, err error) {
	f.Queue = queue
	indexed, scanned, args := s.where(filteredDelayed, f, after.DueAt, after.Seq, upTo, look, bytes)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH last AS MATERIALIZED (
			SELECT due_at, seq FROM (
				SELECT due_at, seq FROM %[1]s WHERE (due_at, seq) > ($1::timestamptz, $2::bigint) ORDER BY due_at, seq LIMIT $4::bigint) c
			ORDER BY due_at DESC, seq DESC LIMIT 1
		)
		SELECT l.due_at, l.seq, m.seq, m.id, m.sent_at, m.expires_at, m.attempt, m.type, m.headers, m.body, m.due_at, m.why, m.error
		FROM last l LEFT JOIN LATERAL (
			SELECT m.seq, m.id::text, m.sent_at, m.expires_at, m.attempt::int, m.type, m.headers::text, m.body, m.due_at, m.why, m.error,
				sum(octet_length(m.body)) OVER (ORDER BY m.due_at, m.seq ROWS UNBOUNDED PRECEDING) - octet_length(m.body) AS before
			FROM %[1]s m WHERE (m.due_at, m.seq) > ($1::timestamptz, $2::bigint) AND (m.due_at, m.seq) <= (l.due_at, l.seq)
				AND m.seq <= $3::bigint AND (%[2]s) AND (%[3]s)
		) m ON m.before < $5::bigint ORDER BY m.due_at, m.seq`, s.table("delayed"), indexed, scanned), args...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m Peeked
		var place DelayedKey
		var seq *int64
		var id, messageType, why, failure *string
		var sentAt *time.Time
		var attempt *int
		if err := rows.Scan(&place.DueAt, &place.Seq, &seq, &id, &sentAt, &m.ExpiresAt, &attempt, &messageType, &m.Headers, &m.Body,
			&m.DueAt, &why, &failure); err != nil {
			return nil, nil, err
		}
		next = &place
		if seq != nil {
			if bytes -= len(m.Body); bytes <= 0 {
				next = &DelayedKey{DueAt: *m.DueAt, Seq: *seq}
			}
			m.Seq, m.ID, m.SentAt, m.Attempt, m.Type, m.Why, m.Error = *seq, *id, *sentAt, *attempt, *messageType, deref(why), deref(failure)
			found = append(found, m)
		}
	}
	return found, next, rows.Err()
}

// Tailed is a message that tail sees. Fits: the filter chooses it, and the other fields are filled in.
type Tailed struct {
	Seq  int64
	Fits bool
	Peeked
}

// ReadTail returns the messages of a queue with one of the given seqs, and the first limit of those after a seq, in
// order. Locks nothing. Relies on the queue's primary key.
func (s readyQueries) ReadTail(ctx context.Context, db DBTX, queue string, f Filter, seqs []int64, after int64, limit int) ([]Tailed, error) {
	indexed, scanned, args := s.where(filteredReady, f, seqs, after, limit)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT m.seq, c.fits, m.id::text, m.sent_at, m.expires_at, m.attempt::int, m.type, CASE WHEN c.fits THEN m.headers::text END,
			CASE WHEN c.fits THEN m.body END
		FROM (
			SELECT * FROM %[1]s WHERE seq = ANY ($1::bigint[])
			UNION ALL
			(SELECT * FROM %[1]s WHERE seq > $2::bigint ORDER BY seq LIMIT $3::bigint)
		) m, LATERAL (SELECT coalesce((%[2]s) AND (%[3]s), false) AS fits OFFSET 0) c
		ORDER BY m.seq`, s.ready(queue), indexed, scanned), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Tailed, err error) {
		err = row.Scan(&a.Seq, &a.Fits, &a.ID, &a.SentAt, &a.ExpiresAt, &a.Attempt, &a.Type, &a.Headers, &a.Body)
		a.Peeked.Seq = a.Seq
		return a, err
	})
}

// LastReady returns the highest seq that a queue has given out. A message that is sent later has a higher one.
func (s readyQueries) LastReady(ctx context.Context, db DBTX, queue string) (seq int64, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.lastReady(queue)).Scan(&seq)
	return seq, err
}

// CountSpan counts the messages of a span of a queue that a filter chooses; of span it takes After, UpTo and Look. Locks
// nothing. Relies on the queue's primary key.
func (s readyQueries) CountSpan(ctx context.Context, db DBTX, queue string, f Filter, span Span) (n int64, looked Looked, err error) {
	indexed, scanned, args := s.where(filteredReady, f, span.After, span.UpTo, span.Look)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH looked AS MATERIALIZED (
			SELECT count(*) AS n, coalesce(max(seq), 0) AS last FROM (
				SELECT seq FROM %[1]s WHERE seq > $1::bigint AND seq <= $2::bigint ORDER BY seq LIMIT $3::bigint) c
		)
		SELECT (SELECT count(*) FROM %[1]s WHERE seq > $1::bigint AND seq <= (SELECT last FROM looked) AND (%[2]s) AND (%[3]s)), n, last
		FROM looked`, s.ready(queue), indexed, scanned), args...).Scan(&n, &looked.Rows, &looked.Last)
	return n, looked, err
}

// FindReady looks for a message in a queue, at the next look messages with seq <= upTo, the newest first, and returns its copies,
// without headers and bodies, and up to which seq nothing was looked at; 0: it has come to the end. Locks nothing. Relies on the queue's
// primary key: there is no index on ids.
func (s readyQueries) FindReady(ctx context.Context, db DBTX, queue, id string, upTo int64, look int) (found []Peeked, left int64, err error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH looked AS MATERIALIZED (
			SELECT seq, id FROM %[1]s WHERE seq <= $1::bigint ORDER BY seq DESC LIMIT $2::bigint
		), came AS (
			SELECT CASE WHEN count(*) < $2::bigint THEN 0 ELSE min(seq) - 1 END AS left FROM looked
		)
		SELECT came.left, m.seq, m.sent_at, m.attempt::int, m.type
		FROM came LEFT JOIN (looked l JOIN %[1]s m ON m.seq = l.seq AND l.id = $3::text::uuid) ON true ORDER BY m.seq`, s.ready(queue)), upTo, look, id)
	if err != nil {
		return nil, 0, err
	}
	var seq *int64
	var sentAt *time.Time
	var attempt *int
	var messageType *string
	_, err = pgx.ForEachRow(rows, []any{&left, &seq, &sentAt, &attempt, &messageType}, func() error {
		if seq != nil {
			found = append(found, Peeked{Seq: *seq, ID: id, SentAt: *sentAt, Attempt: *attempt, Type: *messageType})
		}
		return nil
	})
	return found, left, err
}
