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
