package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

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

// CountReady counts the ready messages of each queue, held ones included, in order of arrival and up to a limit. low says
// of a queue up to which seq it has none; a queue may be missing there. Locks nothing. Relies on the queue's primary key: it
// reads up to limit rows of each queue, and steps over the dead entries in front of them, which can be slow when vacuum
// cannot run. Limit the statement.
func (s *Schema) CountReady(ctx context.Context, db DBTX, queues []string, low map[string]int64, limit int64) ([]Counted, error) {
	return s.countEach(ctx, db, queues, func(queue string) string {
		from := `true`
		if low[queue] > 0 { // unless the sequence was set back by hand since
			from = fmt.Sprintf(`seq > (SELECT CASE WHEN %[1]s >= %[2]d THEN %[2]d ELSE 0 END)`, s.lastReady(queue), low[queue])
		}
		return fmt.Sprintf(`
		SELECT %s, count(*), min(sent_at), (extract(epoch FROM clock_timestamp() - min(sent_at)) * 1000000)::bigint
		FROM (SELECT sent_at FROM %s WHERE %s ORDER BY seq LIMIT %d) m`, quote(queue), s.ready(queue), from, limit)
	})
}

// CountFailed counts the failed messages of each queue up to a limit, archived ones left out. Locks nothing. Relies on
// the index (status, queue, seq).
func (s *Schema) CountFailed(ctx context.Context, db DBTX, queues []string, limit int64) ([]Counted, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT q.name, m.n, NULL::timestamptz, NULL::bigint
		FROM unnest($1::text[]) q (name), LATERAL (SELECT count(*) AS n FROM (
			SELECT FROM %s e WHERE e.status = 'failed' AND e.queue = q.name LIMIT $2::bigint) e) m`, s.table("error")), queues, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanCounted)
}

// EstimateReady estimates the ready messages of each queue. It reads a sample of so many pages, or all of a smaller
// table, and besides the newest messages, which a sample of a bloated table can miss, up to newest of them: a bounded
// effort, whatever the state of the table. Locks nothing.
func (s *Schema) EstimateReady(ctx context.Context, db DBTX, queues []string, pages, newest int) ([]Counted, error) {
	return s.countEach(ctx, db, queues, func(queue string) string {
		return fmt.Sprintf(`
		SELECT %[1]s, greatest(m.n, newest.n), least(m.oldest, newest.oldest),
			(extract(epoch FROM clock_timestamp() - least(m.oldest, newest.oldest)) * 1000000)::bigint
		FROM (SELECT round(count(*) * %[3]s)::bigint AS n, min(sent_at) AS oldest FROM %[2]s) m,
			(SELECT count(*) AS n, min(sent_at) AS oldest FROM (
				SELECT sent_at FROM %[4]s WHERE seq > %[5]s - 2 * %[6]d ORDER BY seq DESC LIMIT %[6]d
			) n) newest`,
			quote(queue), s.sample(s.ready(queue), pages), s.sampleScale(s.ready(queue), pages), s.ready(queue), s.lastReady(queue), newest)
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
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("delayed"), samplePages), s.sampleScale(s.table("delayed"), samplePages))
}

// EstimateLeased estimates the leased messages by queue, from a sample of a thousand pages. Locks nothing.
func (s *Schema) EstimateLeased(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("leased"), samplePages), s.sampleScale(s.table("leased"), samplePages))
}

// EstimateFailed estimates the failed messages by queue, archived ones left out, from a sample of a thousand pages.
// Locks nothing.
func (s *Schema) EstimateFailed(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("error"), samplePages)+` WHERE status = 'failed'`, s.sampleScale(s.table("error"), samplePages))
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

// samplePages is how many pages of a table that all queues share are read for an estimate.
const samplePages = 1000

// sample reads about so many pages of a table, all of them where it has no more.
func (s *Schema) sample(table string, pages int) string {
	return fmt.Sprintf(`%s TABLESAMPLE SYSTEM (least(100.0, %d * 100.0 / greatest(%s, 1)))`, table, pages, s.pages(table))
}

// sampleScale is an SQL expression: by what to multiply a count of such a sample.
func (s *Schema) sampleScale(table string, pages int) string {
	return fmt.Sprintf(`greatest(1.0, %s / %d.0)`, s.pages(table), pages)
}

// lastReady is an SQL expression: the highest seq that a queue has given out; 0 before the first. As a query of its own it is
// evaluated once, and an index can use it.
func (s *Schema) lastReady(queue string) string {
	return fmt.Sprintf(`(SELECT coalesce(pg_sequence_last_value(%s::regclass), 0))`, quote(s.table("s_"+queue)))
}

// lastSeq is an SQL expression: the highest number that the seq column of a table has given out; 0 before the first.
func (s *Schema) lastSeq(table string) string {
	return fmt.Sprintf(`coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'seq')::regclass), 0)`, quote(table))
}
