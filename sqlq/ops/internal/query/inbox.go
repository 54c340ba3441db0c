package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// StuckInbox is an inbox that should have forgotten ids and has not.
type StuckInbox struct {
	Name  string
	Keeps time.Duration
	Since time.Duration // since it last forgot any

	// Who has had a lock on its tables for longest, as far as this role may see that.
	PID      int32         // of a session; 0: it is none
	Prepared string        // name of a prepared transaction; "": it is none
	User     string        // whose
	Query    string        // of the session
	Open     time.Duration // the transaction
}

// StuckInboxes returns the inboxes whose tables have not changed places for three times as long as they keep ids, although
// there are ids that have been in them for longer than late; and who has had a lock on one of the tables for longer than
// held. Locks nothing; reads a few of the first rows of each table.
func (s healthQueries) StuckInboxes(ctx context.Context, db DBTX, late, held time.Duration) ([]StuckInbox, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT name, %s, %s
		FROM %s WHERE rotated_at < clock_timestamp() - 3 * (%s) ORDER BY keeps`, lastingMicros(`keeps`), elapsed(`rotated_at`), s.table("inbox"), lasting(`keeps`)))
	if err != nil {
		return nil, err
	}
	overdue, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i StuckInbox, err error) {
		var keeps, since int64
		err = row.Scan(&i.Name, &keeps, &since)
		i.Keeps, i.Since = time.Duration(keeps)*time.Microsecond, time.Duration(since)*time.Microsecond
		return i, err
	})
	if err != nil {
		return nil, err
	}
	var stuck []StuckInbox
	for _, i := range overdue { // one in which nothing was written need not change
		var old bool
		a, b := s.table("inbox_"+i.Name+"_a"), s.table("inbox_"+i.Name+"_b")
		if err := db.QueryRow(ctx, fmt.Sprintf(`
			SELECT coalesce(bool_or(at < clock_timestamp() - $1::bigint * interval '1 microsecond'), false)
			FROM ((SELECT at FROM %s LIMIT 100) UNION ALL (SELECT at FROM %s LIMIT 100)) first`, a, b), late.Microseconds()).Scan(&old); err != nil {
			return stuck, err
		}
		if !old {
			continue
		}
		if err := s.holderOf(ctx, db, a, b, held, &i); err != nil {
			return stuck, err
		}
		stuck = append(stuck, i)
	}
	return stuck, nil
}

// holderOf finds who has had a lock on one of two tables for longest.
func (s healthQueries) holderOf(ctx context.Context, db DBTX, a, b string, held time.Duration, i *StuckInbox) error {
	rows, err := db.Query(ctx, `
		SELECT coalesce(l.pid, 0), coalesce(p.gid, ''), coalesce(a.usename, p.owner, '')::text, coalesce(a.query, ''),
			(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)) * 1000000)::bigint
		FROM (
			SELECT DISTINCT pid, virtualtransaction FROM pg_locks
			WHERE locktype = 'relation' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
				AND relation IN ($1::text::regclass, $2::text::regclass) AND pid IS DISTINCT FROM pg_backend_pid()
		) l
		LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
		LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
		WHERE coalesce(a.xact_start, p.prepared) < clock_timestamp() - $3::bigint * interval '1 microsecond'
		ORDER BY coalesce(a.xact_start, p.prepared) LIMIT 1`, a, b, held.Microseconds())
	if err != nil {
		return err
	}
	var open int64
	_, err = pgx.ForEachRow(rows, []any{&i.PID, &i.Prepared, &i.User, &i.Query, &open}, func() error {
		i.Open = time.Duration(open) * time.Microsecond
		return nil
	})
	return err
}
