package query

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
	Stalled   bool // it runs, and has done nothing for StalledAfter: its process is dead, or frozen
}

// StalledAfter is how long a running operation that goes by batches may do nothing.
const StalledAfter = 15 * time.Second

// operationColumns are those of Operation. $1 is StalledAfter in microseconds.
const operationColumns = `id, kind, status, filter, queue, up_to, wanted, done, db_role, os_user, host, reason,
	began_at, updated_at, ended_at, error, ` + operationStalled

const operationStalled = `status = 'running' AND updated_at < clock_timestamp() - $1::bigint * interval '1 microsecond'`

// BeginOperation writes an operation down before it changes anything, and returns its number. Of op it takes Kind, Filter,
// Queue, UpTo, Wanted, OSUser, Host and Reason. What lies up to after is left alone; the zero Place: nothing is.
func (s operationQueries) BeginOperation(ctx context.Context, db DBTX, op Operation, after Place) (id int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		INSERT INTO %s (kind, filter, queue, up_to, wanted, os_user, host, reason, after, after_at)
		VALUES ($1::text, $2::text::json, $3::text, $4::bigint, $5::bigint, $6::text, $7::text, $8::text, $9::bigint, $10::timestamptz) RETURNING id`, s.table("operation")),
		op.Kind, string(op.Filter), op.Queue, op.UpTo, op.Wanted, op.OSUser, op.Host, op.Reason, after.Seq, timeOrNil(after.At)).Scan(&id)
	return id, err
}

// Place is up to where everything has been done: by number, or, where At is set, by the time of failure or the due time and
// then the number.
type Place struct {
	At  time.Time
	Seq int64
}

// AdvanceOperation adds what a batch has changed, in the batch's transaction, and the place that it came to; the zero Place:
// none. It says false when the operation was cancelled or has ended: then the batch must be rolled back. It locks the
// operation's row.
func (s operationQueries) AdvanceOperation(ctx context.Context, db DBTX, id, changed int64, after Place) (goesOn bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET done = done + $2::bigint, after = CASE WHEN $4::timestamptz IS NULL THEN greatest(after, $3::bigint) ELSE $3::bigint END,
			after_at = coalesce($4::timestamptz, after_at), updated_at = clock_timestamp()
		WHERE id = $1::bigint AND status = 'running'`, s.table("operation")), id, changed, after.Seq, timeOrNil(after.At))
	return tag.RowsAffected() == 1, err
}

// EndOperation writes down how an operation ended: done, interrupted or cancelled, and what ended it early.
func (s operationQueries) EndOperation(ctx context.Context, db DBTX, id int64, status, failure string) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET status = $2::text, error = nullif($3::text, ''), updated_at = clock_timestamp(), ended_at = clock_timestamp()
		WHERE id = $1::bigint AND status = 'running'`, s.table("operation")), id, status, failure)
	return err
}

// OperationPlace is how far an operation has come.
type OperationPlace struct {
	Status string
	After  Place
	Done   int64
}

// LockOperation returns how far an operation has come and holds it until the transaction ends, so that another process that goes on
// with it, or cancels it, waits for this batch; pgx.ErrNoRows when there is none of that number. They do not wait for ever:
// a process that is frozen in the middle of a batch loses it.
func (s operationQueries) LockOperation(ctx context.Context, tx pgx.Tx, id int64) (p OperationPlace, err error) {
	var at *time.Time
	err = tx.QueryRow(ctx, fmt.Sprintf(`
		SELECT status, after, after_at, done, set_config('idle_in_transaction_session_timeout', '10s', true)
		FROM %s WHERE id = $1::bigint FOR NO KEY UPDATE`, s.table("operation")), id).Scan(&p.Status, &p.After.Seq, &at, &p.Done, nil)
	if at != nil {
		p.After.At = *at
	}
	return p, err
}

// ResumeOperation lets an operation that was interrupted, or has stalled, run again; false: it is neither. It locks the
// operation's row.
func (s operationQueries) ResumeOperation(ctx context.Context, db DBTX, id int64) (resumed bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET status = 'running', error = NULL, updated_at = clock_timestamp(), ended_at = NULL
		WHERE id = $2::bigint AND (status = 'interrupted' OR %s)`, s.table("operation"), operationStalled), StalledAfter.Microseconds(), id)
	return tag.RowsAffected() == 1, err
}

// CancelOperation ends an operation that runs or was interrupted; false: it has ended. by says more of who did it, after
// the role. It waits for the batch in hand.
func (s operationQueries) CancelOperation(ctx context.Context, db DBTX, id int64, by string) (cancelled bool, err error) {
	tag, err := db.Exec(ctx, fmt.Sprintf(`
		UPDATE %s SET status = 'cancelled', error = 'cancelled by ' || session_user || $2::text, updated_at = clock_timestamp(), ended_at = clock_timestamp()
		WHERE id = $1::bigint AND status IN ('running', 'interrupted')`, s.table("operation")), id, by)
	return tag.RowsAffected() == 1, err
}

// ReadOperation returns one operation; pgx.ErrNoRows when there is none of that number.
func (s operationQueries) ReadOperation(ctx context.Context, db DBTX, id int64) (Operation, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`SELECT %s FROM %s WHERE id = $2::bigint`, operationColumns, s.table("operation")),
		StalledAfter.Microseconds(), id)
	if err != nil {
		return Operation{}, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Operation])
}

// OperationFilter chooses operations: those that fit every field that is set.
type OperationFilter struct {
	Status       string // one of the table, or stalled
	Kind         string
	Queue        string // the operation's, or one that its filter may name: the caller looks at that
	User         string // of the system, or the database role
	Since, Until Moment // it began
	Before       int64  // operations with lower numbers
}

// ListOperations returns up to limit operations that a filter chooses, the last one first. Whether an operation's filter names the
// queue it does not say for sure: it looks for the name in the text, because PostgreSQL does not take every JSON text apart. Locks
// nothing. Relies on the primary key, from whose end it reads.
func (s operationQueries) ListOperations(ctx context.Context, db DBTX, f OperationFilter, limit int) ([]Operation, error) {
	args := []any{StalledAfter.Microseconds(), f.Status, f.Kind, limit, f.Queue, f.User, f.Before}
	times := ""
	for _, bound := range []struct {
		operator string
		at       Moment
	}{{">=", f.Since}, {"<", f.Until}} {
		switch {
		case bound.at.Ago != nil:
			args = append(args, bound.at.Ago.Microseconds())
			times += fmt.Sprintf(` AND began_at %s statement_timestamp() - $%d::bigint * interval '1 microsecond'`, bound.operator, len(args))
		case !bound.at.isZero():
			args = append(args, bound.at.At)
			times += fmt.Sprintf(` AND began_at %s $%d::timestamptz`, bound.operator, len(args))
		}
	}
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT %[1]s FROM %[2]s
		WHERE ($2::text = '' OR $2::text = CASE WHEN %[3]s THEN 'stalled' ELSE status END) AND ($3::text = '' OR kind = $3::text)
			AND ($5::text = '' OR queue = $5::text OR strpos(filter::text, '"' || $5::text || '"') > 0)
			AND ($6::text = '' OR os_user = $6::text OR db_role = $6::text) AND ($7::bigint = 0 OR id < $7::bigint)%[4]s
		ORDER BY id DESC LIMIT $4::bigint`, operationColumns, s.table("operation"), operationStalled, times), args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Operation])
}
