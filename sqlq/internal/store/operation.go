package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Operation is a change that an operator made or is making.
type Operation struct {
	ID        int64
	Kind      string
	Status    string          // running, done, interrupted or cancelled
	Filter    json.RawMessage // which messages: a JSON object
	Queue     *string         // where they went, or what was changed; nil: each its own, or none
	UpTo      *int64          // later messages are not part of it; nil: it does not go by number
	After     int64           // everything up to this number has been done
	Wanted    *int64          // how many messages it was to change; nil: not known
	Done      int64           // how many it has changed
	Role      string
	OSUser    string
	Host      string
	Reason    string
	BeganAt   time.Time
	UpdatedAt time.Time
	EndedAt   *time.Time
	Error     *string
}

const operationColumns = `id, kind, status, filter, queue, up_to, after, wanted, done, db_role, os_user, host, reason,
	began_at, updated_at, ended_at, error`

// BeginOperation writes an operation down before it changes anything, and returns its number. Of op it takes Kind, Filter,
// Queue, UpTo, Wanted, OSUser, Host and Reason.
func (s *Schema) BeginOperation(ctx context.Context, db DBTX, op Operation) (id int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		INSERT INTO %s (kind, filter, queue, up_to, wanted, os_user, host, reason)
		VALUES ($1::text, $2::text::json, $3::text, $4::bigint, $5::bigint, $6::text, $7::text, $8::text) RETURNING id`, s.table("operation")),
		op.Kind, string(op.Filter), op.Queue, op.UpTo, op.Wanted, op.OSUser, op.Host, op.Reason).Scan(&id)
	return id, err
}

// AdvanceOperation adds what a batch has changed, in the batch's transaction. It says false when the operation was
// cancelled or has ended: then the batch must be rolled back. It locks the operation's row.
func (s *Schema) AdvanceOperation(ctx context.Context, db DBTX, id, changed, after int64) (goesOn bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET done = done + $2::bigint, after = greatest(after, $3::bigint), updated_at = clock_timestamp()
		WHERE id = $1::bigint AND status = 'running'`, s.table("operation")), id, changed, after)
	return tag.RowsAffected() == 1, err
}

// EndOperation writes down how an operation ended: done, interrupted or cancelled, and what ended it early.
func (s *Schema) EndOperation(ctx context.Context, db DBTX, id int64, status, failure string) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET status = $2::text, error = nullif($3::text, ''), updated_at = clock_timestamp(), ended_at = clock_timestamp()
		WHERE id = $1::bigint AND status = 'running'`, s.table("operation")), id, status, failure)
	return err
}

// ReadOperation returns one operation; pgx.ErrNoRows when there is none of that number.
func (s *Schema) ReadOperation(ctx context.Context, db DBTX, id int64) (Operation, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`SELECT %s FROM %s WHERE id = $1::bigint`, operationColumns, s.table("operation")), id)
	if err != nil {
		return Operation{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Operation])
}
