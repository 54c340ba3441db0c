package query

import (
	"context"
	"fmt"
	"time"
)

// Imported is a message that comes from outside with all that belongs to it.
type Imported struct {
	ID        string     // "": the database makes a new one
	SentAt    *time.Time // nil: now
	ExpiresAt *time.Time // nil: never
	Attempt   int
	Type      string
	Headers   []byte // a JSON object of strings; nil: none
	Body      []byte
	DueAt     *time.Time // nil: it is ready; one that has passed counts as now
	Why       string     // of a delayed one: delay or retry
	Error     string     // likewise: what the last attempt failed with
}

// importedSentAt is when an imported message was sent.
const importedSentAt = `CASE WHEN m.sent_at IS NULL THEN clock_timestamp() ELSE least(m.sent_at::timestamptz, statement_timestamp() - interval '1 microsecond') END`

// ImportReady stores messages in a queue, in order, and returns the channel to notify after the commit; "" when no receiver
// sleeps. They were sent before this statement, whatever their sender's clock says: with a time of sending, bookkeeping may be
// among the headers (the table's constraint sender_limits). An error of class 22 says that one of them cannot be stored: see
// TryHeaders. Locks nothing.
func (s readyQueries) ImportReady(ctx context.Context, db DBTX, queue string, ms []Imported) (channel string, err error) {
	var c *string
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %[1]s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT coalesce(m.id::uuid, %[2]s()), `+importedSentAt+`, m.expires_at::timestamptz,
				m.attempt, m.type, m.headers::json, m.body
			FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::bytea[])
				WITH ORDINALITY AS m (id, sent_at, expires_at, attempt, type, headers, body, n) ORDER BY m.n
		)
		SELECT %[3]s`, s.ready(queue), s.table("uuid_v7"), s.asleep(queue)), importedColumns(ms)...).Scan(&c)
	return deref(c), err
}

// ImportDelayed stores messages among the delayed, for a queue; an error with SQLSTATE 42P01 where there is no such queue.
// The movers find them at their next look. Locks nothing.
func (s readyQueries) ImportDelayed(ctx context.Context, db DBTX, queue string, ms []Imported) error {
	args := importedColumns(ms)
	due, why, failure := make([]*string, len(ms)), make([]string, len(ms)), make([]*string, len(ms))
	for i, m := range ms {
		due[i], why[i] = timeText(m.DueAt), m.Why
		if m.Error != "" {
			failure[i] = &ms[i].Error
		}
	}
	_, err := db.Exec(ctx, fmt.Sprintf(`
		INSERT INTO %[1]s (id, sent_at, expires_at, attempt, type, headers, body, due_at, why, error, queue)
		SELECT coalesce(m.id::uuid, %[2]s()), `+importedSentAt+`, m.expires_at::timestamptz,
			m.attempt, m.type, m.headers::json, m.body, greatest(m.due_at::timestamptz, clock_timestamp()), m.why, m.error, $11::text
		FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::bytea[], $8::text[], $9::text[], $10::text[])
			WITH ORDINALITY AS m (id, sent_at, expires_at, attempt, type, headers, body, due_at, why, error, n)
		WHERE %[3]s($11::text) IS NOT NULL ORDER BY m.n`, s.table("delayed"), s.table("uuid_v7"), s.table("queue_table")),
		append(args, due, why, failure, queue)...)
	return err
}

// importedColumns turns messages on their side, for unnest.
func importedColumns(ms []Imported) []any {
	ids, sent, expires, headers := make([]*string, len(ms)), make([]*string, len(ms)), make([]*string, len(ms)), make([]*string, len(ms))
	attempts, types, bodies := make([]int32, len(ms)), make([]string, len(ms)), make([][]byte, len(ms))
	for i, m := range ms {
		if m.ID != "" {
			ids[i] = &ms[i].ID
		}
		sent[i], expires[i], headers[i] = timeText(m.SentAt), timeText(m.ExpiresAt), textOrNil(m.Headers)
		attempts[i], types[i], bodies[i] = int32(m.Attempt), m.Type, m.Body
	}
	return []any{ids, sent, expires, attempts, types, headers, bodies}
}

func timeText(t *time.Time) *string {
	if t == nil {
		return nil
	}
	text := t.UTC().Format(time.RFC3339Nano)
	return &text
}

// TryHeaders has the database read headers; an error of class 22 says that it does not take them.
func (s readyQueries) TryHeaders(ctx context.Context, db DBTX, headers []byte) error {
	_, err := db.Exec(ctx, `SELECT $1::text::json`, string(headers))
	return err
}
