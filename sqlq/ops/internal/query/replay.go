package query

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Failed messages are changed in batches, each a transaction of the caller that locks its operation, looks ahead, locks
// what the filter chooses there, changes it, and writes down how far it came.

// Snapshot is where the error table ends at a moment.
type Snapshot struct {
	Last int64     // the highest number that it has given out: a message that fails later has a higher one
	At   time.Time // by the clock of the database
}

// FailedSnapshot returns where the error table ends now. Locks nothing.
func (s failedQueries) FailedSnapshot(ctx context.Context, db DBTX) (now Snapshot, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.lastSeq(s.table("error"))+`, statement_timestamp()`).Scan(&now.Last, &now.At)
	return now, err
}

// LastFailed returns the highest number that the error table has given out. A message that fails later has a higher one.
func (s failedQueries) LastFailed(ctx context.Context, db DBTX) (seq int64, err error) {
	now, err := s.FailedSnapshot(ctx, db)
	return now.Last, err
}

// FailedQueue is a queue that has messages in the error table.
type FailedQueue struct {
	Name   string
	Exists bool
}

// FailedQueues returns the queues of all messages with status failed. Locks nothing. Relies on the index (status,
// queue, failed_at, seq), of which it reads one entry a queue.
func (s failedQueries) FailedQueues(ctx context.Context, db DBTX) ([]FailedQueue, error) {
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

// AnyFailed reports whether a filter chooses a message with seq <= upTo. Locks nothing. Relies on the index that the filter
// names.
func (s failedQueries) AnyFailed(ctx context.Context, db DBTX, f Filter, upTo int64) (any bool, err error) {
	indexed, scanned, args := s.where(filteredError, f, upTo)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT EXISTS (SELECT FROM %s WHERE seq <= $1::bigint AND %s AND %s)`, s.table("error"), indexed, scanned), args...).Scan(&any)
	return any, err
}

// NamedFailed is a message that was asked for by number or id.
type NamedFailed struct {
	Seq    int64
	ID     string
	Status string
}

// NamedFailed returns those of the numbers and ids that are in the error table, with any status. Locks nothing. Relies on
// the primary key and the index (id).
func (s failedQueries) NamedFailed(ctx context.Context, db DBTX, seqs []int64, ids []string) ([]NamedFailed, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT seq, id::text, status FROM %s WHERE seq = ANY ($1::bigint[]) OR id = ANY ($2::text[]::uuid[])`, s.table("error")), seqs, ids)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[NamedFailed])
}

// CountPlanned counts the failed messages with seq <= upTo that a filter chooses, those of some queues left out. Locks
// nothing. It reads all that the filter's index leads to, so give it a time limit.
func (s failedQueries) CountPlanned(ctx context.Context, db DBTX, f Filter, except []string, upTo int64) (n int64, err error) {
	indexed, scanned, args := s.where(filteredError, f, upTo, nonNil(except))
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT count(*) FROM %s WHERE seq <= $1::bigint AND queue <> ALL ($2::text[]) AND %s AND %s`, s.table("error"), indexed, scanned), args...).Scan(&n)
	return n, err
}

// EstimatePlanned estimates what CountPlanned counts from a sample of a thousand pages. Locks nothing.
func (s failedQueries) EstimatePlanned(ctx context.Context, db DBTX, f Filter, except []string, upTo int64) (n int64, err error) {
	indexed, scanned, args := s.where(filteredError, f, upTo, nonNil(except))
	table := s.table("error")
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT round(count(*) * %s)::bigint FROM %s WHERE seq <= $1::bigint AND queue <> ALL ($2::text[]) AND %s AND %s`,
		s.sampleScale(table), s.sample(table), indexed, scanned), args...).Scan(&n)
	return n, err
}

// later is a condition on the error table: behind a place in the order of failure, whose parameters it adds; nil: everywhere.
func later(after *FailedKey, args []any) (string, []any) {
	if after == nil {
		return `true`, args
	}
	n := len(args)
	return fmt.Sprintf(`(failed_at, seq) > ($%d::timestamptz, $%d::bigint)`, n+1, n+2), append(args, after.FailedAt, after.Seq)
}

// PlannedFailed returns the first failed messages behind a place, with seq <= upTo, that a filter chooses, the oldest first,
// those of some queues left out. Locks nothing. Relies on the index that the filter names, which has the order. Where the
// filter chooses few it may read much, so give it a time limit; sampled looks at a thousand pages only, and finds any of them.
func (s failedQueries) PlannedFailed(ctx context.Context, db DBTX, f Filter, except []string, after *FailedKey, upTo int64, limit int, sampled bool) ([]Failed, error) {
	table := filteredOrdered
	if sampled {
		table = filteredError
	}
	indexed, scanned, args := s.where(table, f, upTo, nonNil(except), limit)
	behind, args := later(after, args)
	where := fmt.Sprintf(`%s AND seq <= $1::bigint AND queue <> ALL ($2::text[]) AND %s AND %s`, behind, indexed, scanned)
	columns := columnsFor(Filter{})
	from := s.inOrder(f, columns, where, `ASC`, `$3::bigint`)
	if sampled {
		from = fmt.Sprintf(`SELECT %s FROM %s WHERE %s`, columns, s.sample(s.table("error")), where)
	}
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s, NULL::text, NULL::bytea, NULL::text[], NULL::text
		FROM (%s) e ORDER BY failed_at, seq LIMIT $3::bigint`, failedColumns, from), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Failed])
}

// unscanned returns the part of a filter that indexes serve. A parameter that no condition uses would be refused.
func (f Filter) unscanned() Filter {
	f.MinAttempts, f.MaxAttempts, f.Error, f.Pattern, f.Headers, f.Body = nil, nil, "", "", nil, ""
	return f
}

// NewestPlanned returns the place of the n-th newest failed message with seq <= upTo that a filter chooses, those of some
// queues left out; nil: there are fewer. Locks nothing. Relies on the index that the filter names.
func (s failedQueries) NewestPlanned(ctx context.Context, db DBTX, f Filter, except []string, upTo, n int64) (*FailedKey, error) {
	indexed, scanned, args := s.where(filteredOrdered, f, upTo, nonNil(except), n)
	where := fmt.Sprintf(`seq <= $1::bigint AND queue <> ALL ($2::text[]) AND %s AND %s`, indexed, scanned)
	var key FailedKey
	err := db.QueryRow(ctx, fmt.Sprintf(`
		SELECT failed_at, seq FROM (%s) e ORDER BY failed_at DESC, seq DESC OFFSET $3::bigint - 1 LIMIT 1`,
		s.inOrder(f, `failed_at, seq`, where, `DESC`, `$3::bigint`)), args...).Scan(&key.FailedAt, &key.Seq)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return &key, err
}

// LookAhead returns up to which place a batch that begins behind a place is to go: over up to most messages with
// seq <= upTo that the indexed part of a filter chooses, and over so many bytes, but one message at least; nil: there are
// none. end says that there are no more. Locks nothing. Relies on the index that the filter names, which has the order.
func (s failedQueries) LookAhead(ctx context.Context, db DBTX, f Filter, after *FailedKey, upTo int64, most int, bytes int64) (last *FailedKey, end bool, err error) {
	indexed, _, args := s.where(filteredOrdered, f.unscanned(), upTo, most, bytes)
	behind, args := later(after, args)
	read := s.inOrder(f, `failed_at, seq, `+stored+` AS size`, behind+` AND seq <= $1::bigint AND `+indexed, `ASC`, `$2::bigint`)
	var all, taken int
	var at *time.Time
	var seq *int64
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH b AS MATERIALIZED (
			SELECT failed_at, seq, sum(size) OVER (ORDER BY failed_at, seq) - size < $3::bigint AS fits
			FROM (SELECT * FROM (%s) e ORDER BY failed_at, seq LIMIT $2::bigint) r
		), last AS (
			SELECT failed_at, seq FROM b WHERE fits ORDER BY failed_at DESC, seq DESC LIMIT 1
		)
		SELECT (SELECT count(*) FROM b), (SELECT count(*) FROM b WHERE fits), (SELECT failed_at FROM last), (SELECT seq FROM last)`, read), args...).
		Scan(&all, &taken, &at, &seq)
	if err != nil || seq == nil {
		return nil, true, err
	}
	return &FailedKey{*at, *seq}, taken == all && all < most, nil
}

// LockedFailed is a failed message that this transaction has locked.
type LockedFailed struct {
	Seq      int64
	FailedAt time.Time
	Queue    string
}

// LockFailed locks up to limit failed messages that a filter chooses, behind a place and up to last, with seq <= upTo, those
// of some queues left out, and returns them in the order of their failure. It passes over messages that others hold. Relies on
// the index that the filter names; LookAhead has seen to it that few lie between the places.
func (s failedQueries) LockFailed(ctx context.Context, tx pgx.Tx, f Filter, except []string, after *FailedKey, last FailedKey, upTo int64, limit int64) ([]LockedFailed, error) {
	indexed, scanned, args := s.where(filteredError, f, last.FailedAt, last.Seq, upTo, nonNil(except), limit)
	behind, args := later(after, args)
	rows, err := tx.Query(ctx, fmt.Sprintf(`
		SELECT seq, failed_at, queue FROM %s
		WHERE %s AND (failed_at, seq) <= ($1::timestamptz, $2::bigint) AND seq <= $3::bigint AND queue <> ALL ($4::text[]) AND %s AND %s
		ORDER BY failed_at, seq LIMIT $5::bigint FOR UPDATE SKIP LOCKED`, s.table("error"), behind, indexed, scanned), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[LockedFailed])
}

const lockedSeqs = `seq = ANY ($1::bigint[]) AND seq BETWEEN $2::bigint AND $3::bigint`

// The changes of locked messages below take their numbers in ascending order, and write a row of history for each, of
// that operation and kind. They rely on the primary key: the first and the last number are named apart, or the planner,
// who sees thousands of them, may read the whole table.

func lockedArgs(seqs []int64, operation int64, kind string) []any {
	return []any{seqs, seqs[0], seqs[len(seqs)-1], operation, kind}
}

// noted is an SQL statement: it writes down what is done with the messages that a statement returned under that name.
func (s failedQueries) noted(from string) string {
	return fmt.Sprintf(`INSERT INTO %s (message, what, operation, queue, attempts, failed_at, host, error)
			SELECT id, $5::text, $4::bigint, queue, attempts, failed_at, host, message FROM %s ORDER BY failed_at, seq`, s.table("history"), from)
}

// ReplayFailed moves locked messages from the error table to a queue. They start afresh: attempt 0, and no time to live
// where it passed meanwhile, because the receiver would drop them at once. They were sent before this statement, whatever a
// server whose clock is behind believes: the queue's table (sender_limits) takes no bookkeeping of others. How often they were replayed and when they first
// failed goes along in two headers, which become columns again when the message fails. Headers that are no object stay as
// they are. then gets how many there were and the channel to notify after the commit; "": no receiver of the queue sleeps.
//
// It is one statement: each message is in exactly one of the tables whatever happens, and bodies stay inside the server. An
// error with SQLSTATE 42P01 says that the queue has gone.
func (s failedQueries) ReplayFailed(b *pgx.Batch, queue string, seqs []int64, operation int64, kind string, then func(n int64, channel string)) {
	b.Queue(fmt.Sprintf(`
		WITH gone AS (
			DELETE FROM %[1]s WHERE %[3]s
			RETURNING seq, id, sent_at, expires_at, type, headers, body, queue, attempts, failed_at, host, message,
				'"sqlq-first-failed-at":"' || to_char(CASE WHEN isfinite(first_failed_at) THEN first_failed_at ELSE clock_timestamp() END AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
				|| '","sqlq-replays":"' || replays + 1 || '"' AS kept
		), noted AS (
			%[4]s
		), stored AS (
			INSERT INTO %[2]s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT id, least(sent_at, statement_timestamp() - interval '1 microsecond'), CASE WHEN expires_at > clock_timestamp() AND isfinite(expires_at) THEN expires_at END, 0, type, %[5]s, body
			FROM gone ORDER BY failed_at, seq
			RETURNING 1
		)
		SELECT count(*), CASE WHEN count(*) > 0 THEN %[6]s END FROM stored`,
		s.table("error"), s.ready(queue), lockedSeqs, s.noted("gone"), withHeaders("headers", "kept"), s.asleep(queue)),
		lockedArgs(seqs, operation, kind)...).QueryRow(func(row pgx.Row) error {
		var n int64
		var channel *string
		if err := row.Scan(&n, &channel); err != nil {
			return err
		}
		then(n, deref(channel))
		return nil
	})
}

// ArchiveFailed archives locked messages, or takes them back, and hands how many to then.
func (s failedQueries) ArchiveFailed(b *pgx.Batch, archived bool, seqs []int64, operation int64, kind string, then func(n int64)) {
	set := `status = 'failed', archived_at = NULL`
	if archived {
		set = `status = 'archived', archived_at = clock_timestamp()`
	}
	s.changeFailed(b, fmt.Sprintf(`UPDATE %s SET %s`, s.table("error"), set), seqs, operation, kind, then)
}

// DeleteFailed removes locked messages for good, and hands how many to then.
func (s failedQueries) DeleteFailed(b *pgx.Batch, seqs []int64, operation int64, kind string, then func(n int64)) {
	s.changeFailed(b, `DELETE FROM `+s.table("error"), seqs, operation, kind, then)
}

func (s failedQueries) changeFailed(b *pgx.Batch, statement string, seqs []int64, operation int64, kind string, then func(n int64)) {
	b.Queue(fmt.Sprintf(`
		WITH changed AS (
			%s WHERE %s RETURNING seq, id, queue, attempts, failed_at, host, message
		)
		%s`, statement, lockedSeqs, s.noted("changed")), lockedArgs(seqs, operation, kind)...).Exec(func(tag pgconn.CommandTag) error {
		then(tag.RowsAffected())
		return nil
	})
}
