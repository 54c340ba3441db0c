package query

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// LimitStatements ends every later statement of the transaction that runs longer than d, with SQLSTATE 57014; 0: none. It
// also keeps them from being compiled, which for a statement over many queues takes far longer than to run it.
func (s queueQueries) LimitStatements(ctx context.Context, tx DBTX, d time.Duration) error {
	if d > 0 {
		d = max(d, time.Millisecond)
	}
	_, err := tx.Exec(ctx, `
		SELECT set_config('jit', 'off', true), CASE WHEN $1::text <> '0' THEN set_config('statement_timeout', $1::text, true) END`,
		fmt.Sprint(d.Milliseconds()))
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
func (s queueQueries) CountReady(ctx context.Context, db DBTX, queues []string, low map[string]int64, limit int64) ([]Counted, error) {
	return s.countEach(ctx, db, queues, func(queue string) string {
		from := `true`
		if low[queue] > 0 { // unless the sequence was set back by hand since
			from = fmt.Sprintf(`seq > (SELECT CASE WHEN %[1]s >= %[2]d THEN %[2]d ELSE 0 END)`, s.lastReady(queue), low[queue])
		}
		return fmt.Sprintf(`
		SELECT %s, count(*), min(sent_at), %s
		FROM (SELECT sent_at FROM %s WHERE %s ORDER BY seq LIMIT %d) m`, quote(queue), elapsed(`min(sent_at)`), s.ready(queue), from, limit)
	})
}

// CountFailed counts the failed messages of each queue up to a limit, archived ones left out. Locks nothing. Relies on
// the index (status, queue, seq).
func (s queueQueries) CountFailed(ctx context.Context, db DBTX, queues []string, limit int64) ([]Counted, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT q.name, m.n, NULL::timestamptz, NULL::bigint
		FROM unnest($1::text[]) q (name), LATERAL (SELECT count(*) AS n FROM (
			SELECT FROM %s e WHERE e.status = 'failed' AND e.queue = q.name LIMIT $2::bigint) e) m`, s.table("error")), queues, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanCounted)
}

// EstimateReady estimates the ready messages of each queue. It reads about so many pages, or all of a smaller table,
// and besides the newest messages, which a sample of a bloated table can miss, up to newest of them: a bounded effort,
// whatever the state of the table. The pages are spread evenly, which makes a better estimate than TABLESAMPLE does,
// whose number of pages is random. Locks nothing. The sizes are asked for first, and what was read is put together
// here: with many queues, planning a statement that does it itself takes longer than all the rest.
func (s queueQueries) EstimateReady(ctx context.Context, db DBTX, queues []string, pages, newest int) ([]Counted, error) {
	tables := make([]string, len(queues))
	for i, queue := range queues {
		tables[i] = s.ready(queue)
	}
	rows, err := db.Query(ctx, `
		SELECT coalesce(pg_relation_size(to_regclass(t.name)) / current_setting('block_size')::bigint, 0)
		FROM unnest($1::text[]) WITH ORDINALITY t (name, n) ORDER BY t.n`, tables)
	if err != nil {
		return nil, err
	}
	sizes, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, err
	}
	at := map[string]int64{}
	for i, queue := range queues {
		at[queue] = sizes[i]
	}
	parts, err := s.countEach(ctx, db, queues, func(queue string) string {
		size := at[queue]
		step := max(1, (size+int64(pages)-1)/int64(pages))
		first := step / 2
		scale := float64(size) / float64(max(1, (size-1-first)/step+1))
		oldest := `min(sent_at), ` + elapsed(`min(sent_at)`)
		return fmt.Sprintf(`
		SELECT %[1]s, round(count(*) * %[8]f)::bigint, `+oldest+` FROM generate_series(%[2]d, %[3]d, %[4]d) b, LATERAL (SELECT sent_at FROM %[5]s WHERE `+onPage+` OFFSET 0) m
		UNION ALL
		SELECT %[1]s, count(*), `+oldest+` FROM (SELECT sent_at FROM %[5]s WHERE seq > %[6]s - 2 * %[7]d ORDER BY seq DESC LIMIT %[7]d) n`,
			quote(queue), first, size-1, step, s.ready(queue), s.lastReady(queue), newest, scale)
	})
	if err != nil {
		return nil, err
	}
	of := map[string]Counted{}
	for _, part := range parts {
		c, there := of[part.Queue]
		if c.Queue, c.N = part.Queue, max(c.N, part.N); !there || c.OldestAt == nil || part.OldestAt != nil && part.OldestAt.Before(*c.OldestAt) {
			c.OldestAt, c.OldestAge = part.OldestAt, part.OldestAge
		}
		of[part.Queue] = c
	}
	return slices.Collect(maps.Values(of)), nil
}

// onPage is an SQL condition on the rows of a table: they lie on page b. It is a scan of a range of row addresses, which
// PostgreSQL has since 14, but only if it does not end up as the condition of a join: OFFSET 0 behind it keeps it out.
const onPage = `ctid >= ('(' || b || ',0)')::tid AND ctid < ('(' || b + 1 || ',0)')::tid`

// countEach runs one statement that makes rows (queue, count, oldest, its age in microseconds) for each queue.
func (s queueQueries) countEach(ctx context.Context, db DBTX, queues []string, count func(queue string) string) ([]Counted, error) {
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
	err := row.Scan(&c.Queue, &c.N, &c.OldestAt, &age)
	c.OldestAge = duration(age)
	return c, err
}

// CountDelayed counts the delayed messages by queue, among the limit that are due first. The counts of all queues
// together equal the limit when there are that many or more. Locks nothing. Relies on the primary key.
func (s queueQueries) CountDelayed(ctx context.Context, db DBTX, limit int64) ([]Counted, error) {
	return s.countByQueue(ctx, db, fmt.Sprintf(`SELECT queue FROM %s ORDER BY due_at, seq LIMIT %d`, s.table("delayed"), limit), `1`)
}

// CountLeased counts the leased messages by queue, among the first limit of them. The counts of all queues together
// equal the limit when there are that many or more. Locks nothing.
func (s queueQueries) CountLeased(ctx context.Context, db DBTX, limit int64) ([]Counted, error) {
	return s.countByQueue(ctx, db, fmt.Sprintf(`SELECT queue FROM %s LIMIT %d`, s.table("leased"), limit), `1`)
}

// EstimateDelayed estimates the delayed messages by queue, from a sample of a thousand pages. Locks nothing.
func (s queueQueries) EstimateDelayed(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("delayed")), s.sampleScale(s.table("delayed")))
}

// EstimateLeased estimates the leased messages by queue, from a sample of a thousand pages. Locks nothing.
func (s queueQueries) EstimateLeased(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("leased")), s.sampleScale(s.table("leased")))
}

// EstimateFailed estimates the failed messages by queue, archived ones left out, from a sample of a thousand pages.
// Locks nothing.
func (s queueQueries) EstimateFailed(ctx context.Context, db DBTX) ([]Counted, error) {
	return s.countByQueue(ctx, db, `SELECT queue FROM `+s.sample(s.table("error"))+` WHERE status = 'failed'`, s.sampleScale(s.table("error")))
}

func (s base) countByQueue(ctx context.Context, db DBTX, from, scale string) ([]Counted, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, round(count(*) * %s)::bigint, NULL::timestamptz, NULL::bigint FROM (%s) m GROUP BY queue`, scale, from))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanCounted)
}

// pages is an SQL expression: the size of a table now, in pages. The planner's figure may be very old.
func (s base) pages(table string) string {
	return fmt.Sprintf(`(pg_relation_size(%s) / current_setting('block_size')::bigint)`, quote(table))
}

// sample reads about a thousand pages of a table, all of them where it has no more.
func (s base) sample(table string) string {
	return fmt.Sprintf(`%s TABLESAMPLE SYSTEM (least(100.0, 100000.0 / greatest(%s, 1)))`, table, s.pages(table))
}

// sampleScale is an SQL expression: by what to multiply a count of such a sample.
func (s base) sampleScale(table string) string {
	return fmt.Sprintf(`greatest(1.0, %s / 1000.0)`, s.pages(table))
}

// lastReady is an SQL expression: the highest seq that a queue has given out; 0 before the first. As a query of its own it is
// evaluated once, and an index can use it.
func (s base) lastReady(queue string) string {
	return `(SELECT ` + s.Arrived(queue) + `)`
}

// lastSeq is an SQL expression: the highest number that the seq column of a table has given out; 0 before the first.
func (s base) lastSeq(table string) string {
	return fmt.Sprintf(`coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'seq')::regclass), 0)`, quote(table))
}
