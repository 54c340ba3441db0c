package query

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Past is something that an operator did to a message.
type Past struct {
	At        time.Time
	What      string // the kind of operation
	Queue     string // of the message before
	Attempts  *int   // that had been made; nil: not known, like the rest
	FailedAt  *time.Time
	Host      *string // on which the last of them failed
	Error     *string
	Headers   json.RawMessage // of an edit: those before; nil: none
	Body      []byte          // of an edit: that before; nil: it was not changed
	Operation *int64
	Role      *string // of the database; nil: the operation is not there any more
	OSUser    *string
	OpHost    *string
	Reason    *string
}

// History returns what operators last did to the message of an id, up to limit things, the first of them first. Copies of
// an event have the same id: what was done to any of them is there. Locks nothing. Relies on the primary keys of history
// and operation.
func (s failedQueries) History(ctx context.Context, db DBTX, id string, limit int) ([]Past, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT at, what, queue, attempts, failed_at, host, error, headers, body, id, db_role, os_user, op_host, reason FROM (
			SELECT h.seq, h.at, h.what, h.queue, h.attempts, h.failed_at, h.host, h.error, h.headers::text AS headers, h.body,
				h.operation AS id, o.db_role, o.os_user, o.host AS op_host, o.reason
			FROM %s h LEFT JOIN %s o ON o.id = h.operation
			WHERE h.message = $1::text::uuid ORDER BY h.seq DESC LIMIT $2::bigint
		) h ORDER BY seq`, s.table("history"), s.table("operation")), id, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Past])
}

// EditFailed gives a failed message other headers and another body where it still has those that hashes tell, writes the
// old ones into the history, and reports whether it did. A new body of nil stays as it is. It locks the message's row. Relies
// on the primary key.
func (s failedQueries) EditFailed(ctx context.Context, db DBTX, seq int64, was FailedHash, operation int64, headers *string, body []byte) (done bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		WITH old AS MATERIALIZED (
			SELECT * FROM %[1]s WHERE seq = $1::bigint FOR UPDATE
		), kept AS (
			INSERT INTO %[2]s (message, what, operation, queue, attempts, failed_at, host, error, headers, body)
			SELECT id, 'edit', $2::bigint, queue, attempts, failed_at, host, message, headers, CASE WHEN $4::bytea IS NOT NULL THEN body END
			FROM old WHERE %[3]s
		)
		UPDATE %[1]s e SET headers = $3::text::json, body = coalesce($4::bytea, e.body) FROM old WHERE e.seq = old.seq AND %[3]s`,
		s.table("error"), s.table("history"),
		`sha256(convert_to(coalesce(old.headers::text, ''), 'UTF8')) = $5::bytea AND sha256(old.body) = $6::bytea`),
		seq, operation, headers, body, was.Headers[:], was.Body[:])
	return tag.RowsAffected() == 1, err
}

// FailedHash tells the headers and the body of a failed message: the SHA-256 of their text.
type FailedHash struct {
	Headers, Body [32]byte
}

// CheckHeaders has the database read headers as a sender's, a JSON object, and returns them as they are stored; nil for
// none. Its error says what is wrong with them.
func (s failedQueries) CheckHeaders(ctx context.Context, db DBTX, headers []byte) (json.RawMessage, error) {
	var stored *string
	err := db.QueryRow(ctx, fmt.Sprintf(`SELECT %s('T', 'null'::json, $1::text::json)::text`, s.table("check_message")), string(headers)).Scan(&stored)
	if err != nil || stored == nil {
		return nil, err
	}
	return json.RawMessage(*stored), nil
}
