package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Failed is a failed message. The lists leave Headers, Body, Chain and Stack out, which can be large.
type Failed struct {
	Seq           int64
	ID            string
	Status        string // failed or archived
	Queue         string
	Endpoint      string
	Host          string
	Type          string
	Attempts      int
	Replays       int
	SentAt        time.Time
	ExpiresAt     *time.Time // nil: never
	FirstFailedAt time.Time
	FailedAt      time.Time
	ArchivedAt    *time.Time // nil: it is not
	ErrorType     string
	Message       string
	Fingerprint   string
	Headers       json.RawMessage // nil: none
	Body          []byte
	Chain         []string
	Stack         *string // nil: it was not a panic
}

const failedColumns = `seq, id::text, status, queue, endpoint, host, type, attempts, replays, sent_at, expires_at,
	first_failed_at, failed_at, archived_at, error_type, message, fingerprint`

// ListFailed returns up to limit failed messages that a filter chooses, the newest first. Locks nothing. Relies on the
// indexes that the filter names; a filter by type alone reads the table from its end.
func (s *Schema) ListFailed(ctx context.Context, db DBTX, f Filter, limit int) ([]Failed, error) {
	indexed, scanned, args := s.where(filteredError, f, limit)
	where := indexed + ` AND ` + scanned
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s, NULL::text, NULL::bytea, NULL::text[], NULL::text
		FROM %s WHERE %s ORDER BY seq DESC LIMIT $1::bigint`, failedColumns, s.table("error"), where), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Failed])
}

// ReadFailed returns one failed message with all its fields; pgx.ErrNoRows when it is not there. Locks nothing. Relies
// on the primary key.
func (s *Schema) ReadFailed(ctx context.Context, db DBTX, seq int64) (Failed, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s, headers::text, body, chain, stack FROM %s WHERE seq = $1::bigint`, failedColumns, s.table("error")), seq)
	if err != nil {
		return Failed{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Failed])
}

// LastFailed returns the highest number that the error table has given out. A message that fails later has a higher one.
func (s *Schema) LastFailed(ctx context.Context, db DBTX) (seq int64, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.lastSeq(s.table("error"))).Scan(&seq)
	return seq, err
}

// FailedQueue is a queue that has messages in the error table.
type FailedQueue struct {
	Name   string
	Exists bool
}

// FailedQueues returns the queues of all messages with status failed. Locks nothing. Relies on the index (status,
// queue, seq), of which it reads one entry a queue.
func (s *Schema) FailedQueues(ctx context.Context, db DBTX) ([]FailedQueue, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH RECURSIVE f AS (
			(SELECT queue FROM %[1]s WHERE status = 'failed' ORDER BY queue LIMIT 1)
			UNION ALL
			SELECT (SELECT e.queue FROM %[1]s e WHERE e.status = 'failed' AND e.queue > f.queue ORDER BY e.queue LIMIT 1)
			FROM f WHERE f.queue IS NOT NULL
		)
		SELECT queue, EXISTS (SELECT FROM %[2]s q WHERE q.name = f.queue) FROM f WHERE queue IS NOT NULL`,
		s.table("error"), s.table("queue")))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedQueue])
}

// AnyFailed says whether a filter chooses a message with after < seq <= upTo. Locks nothing.
func (s *Schema) AnyFailed(ctx context.Context, db DBTX, f Filter, after, upTo int64) (any bool, err error) {
	indexed, scanned, args := s.where(filteredError, f, after, upTo)
	where := indexed + ` AND ` + scanned
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT EXISTS (SELECT FROM %s WHERE seq > $1::bigint AND seq <= $2::bigint AND %s)`, s.table("error"), where), args...).Scan(&any)
	return any, err
}

// MovedFailed is what one batch did.
type MovedFailed struct {
	N       int64
	Last    int64  // the highest seq of the batch
	Channel string // to notify after the commit; "": no receiver of the queue sleeps
}

// ReplayFailed moves up to limit failed messages of one queue that a filter chooses, with after < seq <= upTo, from the
// error table back to the queue. They start afresh: attempt 0, and no time to live where it passed meanwhile, because
// the receiver would drop them at once. How often they were replayed and when they first failed goes along in two
// headers, which become columns again when the message fails. Headers that are no object stay as they are.
//
// It is one statement: each message is in exactly one of the tables whatever happens, and bodies stay inside the
// server. It locks the rows that it moves and passes over those that others hold, so two that run at once share the
// messages. An error with SQLSTATE 42P01 says that the queue has gone. Relies on the index (status, queue, seq).
func (s *Schema) ReplayFailed(ctx context.Context, db DBTX, queue string, f Filter, after, upTo int64, limit int) (MovedFailed, error) {
	f.Status, f.Queue = "failed", queue
	indexed, scanned, args := s.where(filteredError, f, after, upTo, limit)
	where := indexed + ` AND ` + scanned
	var moved MovedFailed
	var channel *string
	err := db.QueryRow(ctx, fmt.Sprintf(`
		WITH picked AS MATERIALIZED (
			SELECT seq FROM %[1]s WHERE seq > $1::bigint AND seq <= $2::bigint AND %[3]s
			ORDER BY seq LIMIT $3::bigint FOR UPDATE SKIP LOCKED
		), gone AS (
			DELETE FROM %[1]s e USING picked p WHERE e.seq = p.seq
			RETURNING e.seq, e.id, e.sent_at, e.expires_at, e.type, e.headers, e.body,
				'"sqlq-first-failed-at":"' || to_char(e.first_failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
				|| '","sqlq-replays":"' || e.replays + 1 || '"' AS kept
		), stored AS (
			INSERT INTO %[2]s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT id, sent_at, CASE WHEN expires_at > clock_timestamp() THEN expires_at END, 0, type,
				%[5]s, body
			FROM gone ORDER BY seq
			RETURNING 1
		)
		SELECT count(*), (SELECT coalesce(max(seq), 0) FROM picked), CASE WHEN count(*) > 0 THEN %[4]s END FROM stored`,
		s.table("error"), s.ready(queue), where, s.asleep(queue), withHeaders("headers", "kept")), args...).Scan(&moved.N, &moved.Last, &channel)
	moved.Channel = deref(channel)
	return moved, err
}

// ArchiveFailed archives up to limit failed messages that a filter chooses, with after < seq <= upTo. It locks the rows
// and passes over those that others hold.
func (s *Schema) ArchiveFailed(ctx context.Context, db DBTX, f Filter, after, upTo int64, limit int) (MovedFailed, error) {
	f.Status = "failed"
	indexed, scanned, args := s.where(filteredError, f, after, upTo, limit)
	where := indexed + ` AND ` + scanned
	var moved MovedFailed
	err := db.QueryRow(ctx, fmt.Sprintf(`
		WITH picked AS MATERIALIZED (
			SELECT seq FROM %[1]s WHERE seq > $1::bigint AND seq <= $2::bigint AND %[2]s
			ORDER BY seq LIMIT $3::bigint FOR UPDATE SKIP LOCKED
		), done AS (
			UPDATE %[1]s e SET status = 'archived', archived_at = clock_timestamp() FROM picked p WHERE e.seq = p.seq
			RETURNING e.seq
		)
		SELECT count(*), coalesce(max(seq), 0) FROM done`, s.table("error"), where), args...).Scan(&moved.N, &moved.Last)
	return moved, err
}
