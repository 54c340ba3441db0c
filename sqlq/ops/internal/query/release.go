package query

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// LeaseFilter chooses leased messages: those that match every field that is set. Zero fields match everything.
type LeaseFilter struct {
	Leases   []int64  // those with these numbers
	IDs      []string // or these message ids
	Queue    string
	Type     string
	Instance int32
	Age      time.Duration // leased for that long at least
	After    *LeaseKey     // only those behind this place in the order of ListLeased; nil: all
	UpTo     int64         // leases with higher numbers are not meant; 0: all are
}

// LeaseKey is a place in the order of the leased messages.
type LeaseKey struct {
	LeasedAt time.Time
	Lease    int64
}

// leaseConds returns the filter as a condition on the leased table l, whose parameters follow args, and the parameters with
// args in front.
func leaseConds(f LeaseFilter, args ...any) (where string, _ []any) {
	conds := []string{`true`}
	add := func(format string, values ...any) {
		places := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			places[i] = len(args)
		}
		conds = append(conds, fmt.Sprintf(format, places...))
	}
	if f.Leases != nil || f.IDs != nil {
		add(`(l.lease = ANY ($%d::bigint[]) OR l.id = ANY ($%d::text[]::uuid[]))`, f.Leases, f.IDs)
	}
	if f.Queue != "" {
		add(`l.queue = $%d::text`, f.Queue)
	}
	if f.Type != "" {
		add(`l.type = $%d::text`, f.Type)
	}
	if f.Instance != 0 {
		add(`l.instance = $%d::int`, f.Instance)
	}
	if f.Age > 0 {
		add(`l.leased_at <= statement_timestamp() - $%d::bigint * interval '1 microsecond'`, f.Age.Microseconds())
	}
	if f.After != nil {
		add(`(l.leased_at, l.lease) > ($%d::timestamptz, $%d::bigint)`, f.After.LeasedAt, f.After.Lease)
	}
	if f.UpTo > 0 {
		add(`l.lease <= $%d::bigint`, f.UpTo)
	}
	return strings.Join(conds, ` AND `), args
}

// Leased is a leased message without its headers and body.
type Leased struct {
	Lease    int64
	Instance int32
	Host     string // of the instance; "": nothing is known of it any more
	PID      int
	State    string // of the instance: running, late, crashed, drained or gone
	Queue    string
	ID       string
	Type     string
	Attempt  int
	SentAt   time.Time
	LeasedAt time.Time
	For      int64 // microseconds since then
}

// ListLeased returns up to limit leased messages that a filter chooses, the oldest lease first. Locks
// nothing. Only a filter by instance has an index, the primary key; else it reads the whole table, which has no more rows
// than handlers run.
func (s leaseQueries) ListLeased(ctx context.Context, db DBTX, f LeaseFilter, limit int) ([]Leased, error) {
	where, args := leaseConds(f, limit)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT l.lease, l.instance, coalesce(i.host, ''), coalesce(i.pid, 0), CASE WHEN i.id IS NULL THEN 'gone' ELSE %s END,
			l.queue, l.id::text, l.type, l.attempt::int, l.sent_at, l.leased_at,
			%s
		FROM %s l LEFT JOIN %s i ON i.id = l.instance
		WHERE %s ORDER BY l.leased_at, l.lease LIMIT $1::bigint`, instanceState, elapsed(`l.leased_at`), s.table("leased"), s.table("instance"), where), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Leased])
}

// LeasedIn is what a filter chooses of one queue.
type LeasedIn struct {
	Queue string
	N     int64
	Last  int64 // the highest lease
}

// LeasedByQueue counts the leased messages that a filter chooses. Locks nothing. It reads what ListLeased reads.
func (s leaseQueries) LeasedByQueue(ctx context.Context, db DBTX, f LeaseFilter) ([]LeasedIn, error) {
	where, args := leaseConds(f)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT l.queue, count(*), max(l.lease) FROM %s l WHERE %s GROUP BY l.queue ORDER BY l.queue`, s.table("leased"), where), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[LeasedIn])
}

// ReleaseLeased puts up to limit leased messages of one queue that a filter chooses back into it, in the order of their
// leases, and writes each down as changed by an operation. They keep the attempts that had ended. What the handler of an
// instance that lives does with such a message is not stored any more: it finds its lease gone. Those of an instance that is
// dead are marked as recover_leased marks them, because one of them may have killed it.
//
// It locks the rows that it moves and passes over those that others hold: they are being settled, or handled in a
// transaction. It returns how many it moved, and the channel to notify after the commit; "": no receiver of the queue
// sleeps. An error with SQLSTATE 42P01 says that the queue has gone.
func (s leaseQueries) ReleaseLeased(ctx context.Context, db DBTX, queue string, f LeaseFilter, operation int64, limit int) (n int64, channel string, err error) {
	f.Queue = queue
	where, args := leaseConds(f, operation, limit)
	var woken *string
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH picked AS MATERIALIZED (
			SELECT l.instance, l.lease, NOT EXISTS (SELECT FROM %[2]s i WHERE i.id = l.instance AND %[3]s) AS dead
			FROM %[1]s l WHERE %[4]s ORDER BY l.instance, l.lease LIMIT $2::bigint FOR UPDATE OF l SKIP LOCKED
		), taken AS (
			DELETE FROM %[1]s l USING picked p WHERE l.instance = p.instance AND l.lease = p.lease RETURNING l.*, p.dead
		), stored AS (
			INSERT INTO %[5]s (id, sent_at, expires_at, attempt, type, headers, body)
			SELECT id, sent_at, expires_at, attempt, type,
				CASE WHEN NOT dead OR headers::text ~ '[{,]\s*"sqlq-crashes":"' THEN headers ELSE %[6]s END, body
			FROM taken ORDER BY leased_at, seq
		), told AS (
			INSERT INTO %[7]s (message, what, operation, queue, attempts)
			SELECT id, 'release', $1::bigint, queue, attempt FROM taken ORDER BY lease
		)
		SELECT (SELECT count(*) FROM taken), CASE WHEN EXISTS (SELECT FROM taken) THEN %[8]s END`,
		s.table("leased"), s.table("instance"), lives, where, s.ready(queue), withHeaders("headers", `'"sqlq-crashes":"0"'`),
		s.table("history"), s.asleep(queue)), args...).Scan(&n, &woken)
	return n, deref(woken), err
}
