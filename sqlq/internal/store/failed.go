package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
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

// ListFailed returns up to limit failed messages that a filter chooses, those with the highest numbers first. It is for
// messages that are named: NextFailed goes through many. Locks nothing. Relies on the primary key and the index (id).
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

// FailedKey is a place in the order of the failed messages.
type FailedKey struct {
	FailedAt time.Time
	Seq      int64
}

// FailedScan is how NextFailed goes through the error table.
type FailedScan struct {
	Oldest bool       // from the oldest on; else from the newest
	After  *FailedKey // from there on; nil: from the beginning
	UpTo   int64      // no higher numbers; 0: all
	Look   int        // at so many messages that the indexes find, at most
	Limit  int        // return at most so many of them
	Sizes  bool       // return how long bodies are, too
}

// FailedChunk is what NextFailed found.
type FailedChunk struct {
	Failed []Failed
	Sizes  []int      // of their bodies, in bytes
	Looked int        // how many messages it looked at; not known of the last chunk
	Next   *FailedKey // where the next chunk begins; nil: this was the last
}

// NextFailed looks at the next messages in the order of their failure, and returns those that a filter chooses. However
// rare they are, it ends after o.Look messages that fit the indexed part of the filter, so a whole scan is many short
// statements and none holds vacuum back. Locks nothing. Relies on the indexes (status, failed_at, seq) and (type,
// failed_at, seq), which have the order; what others find is sorted first.
func (s *Schema) NextFailed(ctx context.Context, db DBTX, f Filter, o FailedScan) (FailedChunk, error) {
	direction, beyond := `DESC`, `<`
	if o.Oldest {
		direction, beyond = `ASC`, `>`
	}
	columns, size := columnsFor(f), `0`
	if o.Sizes {
		size, columns = `size`, columns+`, octet_length(body) AS size`
	}
	indexed, scanned, args := s.where(filteredError, f, o.Look, o.Limit)
	if o.After != nil {
		args = append(args, o.After.FailedAt, o.After.Seq)
		indexed += fmt.Sprintf(` AND (failed_at, seq) %s ($%d::timestamptz, $%d::bigint)`, beyond, len(args)-1, len(args))
	}
	if o.UpTo > 0 {
		args = append(args, o.UpTo)
		indexed += fmt.Sprintf(` AND seq <= $%d::bigint`, len(args))
	}
	// The last message looked at is returned whether it fits or not: it says where to go on.
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT fits, n, %[1]s, %[2]s FROM (
			SELECT coalesce(%[3]s, false) AS fits, c.* FROM (
				SELECT *, row_number() OVER (ORDER BY failed_at %[4]s, seq %[4]s) AS n
				FROM (%[5]s) e ORDER BY failed_at %[4]s, seq %[4]s LIMIT $1::bigint
			) c OFFSET 0
		) m WHERE fits OR n = $1::bigint LIMIT $2::bigint`,
		size, failedColumns, scanned, direction, s.inOrder(f.Status, columns, indexed, direction, `$1::bigint`)), args...)
	if err != nil {
		return FailedChunk{}, err
	}
	var chunk FailedChunk
	returned := 0
	var fits bool
	var m Failed
	var bytes int
	_, err = pgx.ForEachRow(rows, append([]any{&fits, &chunk.Looked, &bytes}, m.scanned()...), func() error {
		returned++
		chunk.Next = &FailedKey{m.FailedAt, m.Seq}
		if fits {
			chunk.Failed, chunk.Sizes = append(chunk.Failed, m), append(chunk.Sizes, bytes)
		}
		return nil
	})
	if returned < o.Limit && chunk.Looked < o.Look {
		chunk.Next = nil
	}
	return chunk, err
}

// columnsFor returns the columns that lists and a filter take. Who may not read headers and bodies can do without them.
func columnsFor(f Filter) string {
	columns := strings.Replace(failedColumns, `id::text`, `id`, 1)
	if f.Body != "" {
		columns += `, body`
	}
	if len(f.Headers) > 0 {
		columns += `, headers`
	}
	return columns
}

// inOrder selects the first messages of the error table in the order of their failure. Where both statuses are wanted each
// is read on its own, because only so the index (status, failed_at, seq) has the order.
func (s *Schema) inOrder(status, columns, indexed, direction, limit string) string {
	ofOne := func(and string) string {
		return fmt.Sprintf(`(SELECT %[1]s FROM %[2]s WHERE %[3]s%[4]s ORDER BY failed_at %[5]s, seq %[5]s LIMIT %[6]s)`,
			columns, s.table("error"), indexed, and, direction, limit)
	}
	if status != "" {
		return ofOne("")
	}
	return ofOne(` AND status = 'failed'`) + ` UNION ALL ` + ofOne(` AND status = 'archived'`)
}

// scanned returns where the columns of failedColumns go.
func (f *Failed) scanned() []any {
	return []any{&f.Seq, &f.ID, &f.Status, &f.Queue, &f.Endpoint, &f.Host, &f.Type, &f.Attempts, &f.Replays, &f.SentAt, &f.ExpiresAt,
		&f.FirstFailedAt, &f.FailedAt, &f.ArchivedAt, &f.ErrorType, &f.Message, &f.Fingerprint}
}

// ReadFailed returns the failed messages of those numbers that are there, in any order, with all their fields. Locks
// nothing. Relies on the primary key.
func (s *Schema) ReadFailed(ctx context.Context, db DBTX, seqs ...int64) ([]Failed, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s, headers::text, body, chain, stack FROM %s WHERE seq = ANY ($1::bigint[])`, failedColumns, s.table("error")), seqs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Failed])
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
