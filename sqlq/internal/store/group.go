package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// FailedGroup is failures of one fault, of one queue, type and status.
type FailedGroup struct {
	Fingerprint string
	Queue       string
	Type        string
	Status      string
	N           int64
	FirstAt     time.Time // by failed_at
	LastAt      time.Time
	Seq         int64 // number of one of them, a late one
}

const groupColumns = `fingerprint, queue, type, status, count(*), min(failed_at), max(failed_at), max(seq)`

// GroupFailed counts the failed messages that a filter chooses by group, queue, type and status. It reads each of them:
// 200,000 take about 0.1 s. Limit the statement. Locks nothing.
func (s *Schema) GroupFailed(ctx context.Context, db DBTX, f Filter) ([]FailedGroup, error) {
	indexed, scanned, args := s.where(filteredError, f)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %s FROM %s WHERE %s AND %s GROUP BY fingerprint, queue, type, status`, groupColumns, s.table("error"), indexed, scanned), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedGroup])
}

// EstimateGroups estimates what GroupFailed counts, from a sample of a thousand pages. What failed last is read besides,
// so that a new fault is not missed: a bounded effort. Locks nothing. Relies on the index (status, failed_at, seq).
func (s *Schema) EstimateGroups(ctx context.Context, db DBTX, f Filter) ([]FailedGroup, error) {
	indexed, scanned, args := s.where(filteredError, f)
	ofStatus := `true`
	if f.Status != "" {
		ofStatus = `status = ` + quote(f.Status)
	}
	newest := s.inOrder(f.Status, columnsFor(f), ofStatus, `DESC`, `5000`)
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT fingerprint, queue, type, status, max(n)::bigint, min(first), max(last), max(seq) FROM (
			SELECT %[1]s FROM %[2]s WHERE %[3]s AND %[4]s GROUP BY fingerprint, queue, type, status
			UNION ALL
			SELECT %[6]s FROM (%[5]s) m
			WHERE %[3]s AND %[4]s GROUP BY fingerprint, queue, type, status
		) g (fingerprint, queue, type, status, n, first, last, seq) GROUP BY fingerprint, queue, type, status`,
		fmt.Sprintf(`fingerprint, queue, type, status, round(count(*) * %s), min(failed_at), max(failed_at), max(seq)`, s.sampleScale(s.table("error"))),
		s.sample(s.table("error")), indexed, scanned, newest, groupColumns), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedGroup])
}

// FailedText is how a message failed.
type FailedText struct {
	Seq       int64
	ErrorType string
	Message   string // the beginning
}

// ReadFailedTexts returns how the messages of those numbers failed, of those that are there. Locks nothing. Relies on the
// primary key.
func (s *Schema) ReadFailedTexts(ctx context.Context, db DBTX, seqs []int64) ([]FailedText, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT seq, error_type, left(message, 1000) FROM %s WHERE seq = ANY ($1::bigint[])`, s.table("error")), seqs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[FailedText])
}

// CountChosen counts the failed messages that a filter chooses, up to a limit. Limit the statement: where few fit it reads
// all that the indexed part of the filter leaves. Locks nothing.
func (s *Schema) CountChosen(ctx context.Context, db DBTX, f Filter, limit int64) (n int64, err error) {
	indexed, scanned, args := s.where(filteredError, f, limit)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT count(*) FROM (SELECT FROM %s WHERE %s AND %s LIMIT $1::bigint) m`, s.table("error"), indexed, scanned), args...).Scan(&n)
	return n, err
}

// EstimateChosen estimates what CountChosen counts, from a sample of a thousand pages. Locks nothing.
func (s *Schema) EstimateChosen(ctx context.Context, db DBTX, f Filter) (n int64, err error) {
	indexed, scanned, args := s.where(filteredError, f)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT round(count(*) * %s)::bigint FROM %s WHERE %s AND %s`,
		s.sampleScale(s.table("error")), s.sample(s.table("error")), indexed, scanned), args...).Scan(&n)
	return n, err
}
