package query

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// FailedGroup is failures that share the value of a column, of one queue, type and status.
type FailedGroup struct {
	Key     string // the value
	Queue   string
	Type    string
	Status  string
	N       int64
	FirstAt time.Time // by failed_at
	LastAt  time.Time
	Seq     int64 // number of one of them, a late one
}

// GroupColumn is a column of the error table by which failed messages are grouped.
type GroupColumn string

// The columns by which failed messages can be grouped.
const (
	GroupByFingerprint GroupColumn = "fingerprint"
	GroupByQueue       GroupColumn = "queue"
	GroupByType        GroupColumn = "type"
	GroupByHost        GroupColumn = "host"
	GroupByErrorType   GroupColumn = "error_type"
)

// GroupFailed counts the failed messages that a filter chooses by a column, queue, type and status. It reads each of them:
// 200,000 take about 0.1 s. Limit the statement. Locks nothing.
func (s failedQueries) GroupFailed(ctx context.Context, db DBTX, by GroupColumn, f Filter) ([]FailedGroup, error) {
	indexed, scanned, args := s.where(filteredError, f)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %[1]s, queue, type, status, count(*), min(failed_at), max(failed_at), max(seq)
		FROM %[2]s WHERE %[3]s AND %[4]s GROUP BY %[1]s, queue, type, status`, by, s.table("error"), indexed, scanned), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedGroup])
}

// EstimateGroups estimates what GroupFailed counts, from a sample of a thousand pages. What failed last is read besides,
// so that a new fault is not missed: a bounded effort. Locks nothing. Relies on the index (status, failed_at, seq).
func (s failedQueries) EstimateGroups(ctx context.Context, db DBTX, by GroupColumn, f Filter) ([]FailedGroup, error) {
	indexed, scanned, args := s.where(filteredError, f)
	ofStatus := `true`
	if f.Status != "" {
		ofStatus = `status = ` + quote(f.Status)
	}
	newest := s.inOrder(f, columnsFor(f), ofStatus, `DESC`, `5000`)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT key, queue, type, status, max(n)::bigint, min(first), max(last), max(seq) FROM (
			SELECT %[1]s, queue, type, status, round(count(*) * %[6]s), min(failed_at), max(failed_at), max(seq)
			FROM %[2]s WHERE %[3]s AND %[4]s GROUP BY %[1]s, queue, type, status
			UNION ALL
			SELECT %[1]s, queue, type, status, count(*), min(failed_at), max(failed_at), max(seq)
			FROM (%[5]s) m WHERE %[3]s AND %[4]s GROUP BY %[1]s, queue, type, status
		) g (key, queue, type, status, n, first, last, seq) GROUP BY key, queue, type, status`,
		by, s.sample(s.table("error")), indexed, scanned, newest, s.sampleScale(s.table("error"))), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedGroup])
}

// ListGroups looks the groups up one by one, up to most of them in the order of their fingerprints: of each status how
// many messages the indexed part of a filter chooses, counted up to a number, which it returns, the first and the last,
// and of the last its queue and type. Only a filter by status, fingerprint and times can be asked. Locks nothing.
// Relies on the index (status, fingerprint, failed_at, seq): it reads an entry a group and those that it counts, but
// under row security whatever lies between messages that may be seen. Limit the statement.
func (s failedQueries) ListGroups(ctx context.Context, db DBTX, f Filter, most int) (groups []FailedGroup, upTo int64, err error) {
	fingerprint := Filter{Fingerprint: f.Fingerprint}
	only, _, args := s.where(filteredOrdered, fingerprint, most)
	times, _, args := s.where(filtered{time: "failed_at"}, Filter{Since: f.Since, Until: f.Until}, args...)
	of := `'failed', 'archived'`
	if f.Status != "" {
		of = quote(f.Status)
	}
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH RECURSIVE g AS (
			SELECT s.status, (SELECT e.fingerprint FROM %[1]s e WHERE e.status = s.status AND %[2]s ORDER BY e.fingerprint LIMIT 1) AS fingerprint, 1 AS n
			FROM unnest(ARRAY[%[3]s]) s (status)
			UNION ALL
			SELECT g.status, (SELECT e.fingerprint FROM %[1]s e WHERE e.status = g.status AND e.fingerprint > g.fingerprint AND %[2]s
				ORDER BY e.fingerprint LIMIT 1), g.n + 1
			FROM g WHERE g.fingerprint IS NOT NULL AND g.n < $1::bigint
		), share AS (
			SELECT greatest(%[5]d, least(%[6]d, %[7]d / greatest(count(*), 1))) AS most FROM g
		)
		SELECT g.fingerprint, last.queue, last.type, g.status, c.n, first.failed_at, last.failed_at, last.seq, share.most
		FROM g, share,
			LATERAL (SELECT e.failed_at FROM %[1]s e WHERE e.fingerprint = g.fingerprint AND e.status = g.status AND %[4]s
				ORDER BY e.failed_at, e.seq LIMIT 1) first,
			LATERAL (SELECT e.failed_at, e.seq, e.queue, e.type FROM %[1]s e WHERE e.fingerprint = g.fingerprint AND e.status = g.status AND %[4]s
				ORDER BY e.failed_at DESC, e.seq DESC LIMIT 1) last,
			LATERAL (SELECT count(*) AS n FROM (SELECT FROM %[1]s e WHERE e.fingerprint = g.fingerprint AND e.status = g.status AND %[4]s
				ORDER BY e.failed_at, e.seq LIMIT share.most) m) c
		WHERE g.fingerprint IS NOT NULL`, s.table("error"), only, of, times, leastInGroup, mostInGroup, mostInGroups), args...)
	if err != nil {
		return nil, 0, err
	}
	var g FailedGroup
	_, err = pgx.ForEachRow(rows, []any{&g.Key, &g.Queue, &g.Type, &g.Status, &g.N, &g.FirstAt, &g.LastAt, &g.Seq, &upTo}, func() error {
		groups = append(groups, g)
		return nil
	})
	return groups, upTo, err
}

// Up to how many messages ListGroups counts: of a status in a group, and about so many of all groups.
const (
	leastInGroup = 100
	mostInGroup  = 1000
	mostInGroups = 50_000
)

// ExpectFailed returns how many failed messages the planner believes a filter to choose, from its statistics: a guess that
// costs nothing, to choose a way by. Locks nothing.
func (s failedQueries) ExpectFailed(ctx context.Context, db DBTX, f Filter) (n float64, err error) {
	indexed, _, args := s.where(filteredError, f.unscanned())
	var plan []struct {
		Plan struct {
			Rows float64 `json:"Plan Rows"`
		}
	}
	err = db.QueryRow(ctx, fmt.Sprintf(`EXPLAIN (FORMAT JSON) SELECT FROM %s WHERE %s`, s.table("error"), indexed), args...).Scan(&plan)
	if err != nil || len(plan) == 0 {
		return 0, err
	}
	return plan[0].Plan.Rows, nil
}

// FailedText is how a message failed.
type FailedText struct {
	Seq       int64
	ErrorType string
	Message   string // the beginning
}

// ReadFailedTexts returns how the messages of those numbers failed, of those that are there. Locks nothing. Relies on the
// primary key.
func (s failedQueries) ReadFailedTexts(ctx context.Context, db DBTX, seqs []int64) ([]FailedText, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT seq, error_type, left(message, 1000) FROM %s WHERE seq = ANY ($1::bigint[])`, s.table("error")), seqs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedText])
}

// CountChosen counts the failed messages that a filter chooses, up to a limit. Limit the statement: where few fit it reads
// all that the indexed part of the filter leaves. Locks nothing.
func (s failedQueries) CountChosen(ctx context.Context, db DBTX, f Filter, limit int64) (n int64, err error) {
	indexed, scanned, args := s.where(filteredError, f, limit)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT count(*) FROM (SELECT FROM %s WHERE %s AND %s LIMIT $1::bigint) m`, s.table("error"), indexed, scanned), args...).Scan(&n)
	return n, err
}

// EstimateChosen estimates what CountChosen counts, from a sample of a thousand pages. Locks nothing.
func (s failedQueries) EstimateChosen(ctx context.Context, db DBTX, f Filter) (n int64, err error) {
	indexed, scanned, args := s.where(filteredError, f)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT round(count(*) * %s)::bigint FROM %s WHERE %s AND %s`,
		s.sampleScale(s.table("error")), s.sample(s.table("error")), indexed, scanned), args...).Scan(&n)
	return n, err
}
