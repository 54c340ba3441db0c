package query

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// FindByKey makes the statements of a transaction look rows up by their keys, whatever the planner believes of the size of
// tables whose statistics are old.
func (s delayedQueries) FindByKey(ctx context.Context, tx DBTX) error {
	_, err := tx.Exec(ctx, `SELECT set_config(n, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin']) n`)
	return err
}

// DelayedChange is what one batch did to delayed messages.
type DelayedChange struct {
	N       int64
	Next    *DelayedKey // the place it came to; nil: the end of the stretch
	Channel string      // to notify after the commit, because a message is due soon; "": none is
}

// CancelDelayed looks at the next limit delayed messages of a stretch and removes those that a filter chooses, with a row of
// history for each; no more of them than there are so many bytes in, but one at least. It locks them and passes over those that
// others hold: those are being moved.
func (s delayedQueries) CancelDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, operation int64, limit int, bytes int64) (DelayedChange, error) {
	return s.changeDelayed(ctx, db, st, f, limit, bytes, fmt.Sprintf(`
			DELETE FROM %s d USING picked p WHERE d.due_at = p.due_at AND d.seq = p.seq
			RETURNING d.id, d.queue, d.attempt, d.error, NULL::timestamptz AS due_at`, s.table("delayed")), `true`, "cancel", operation)
}

// Due is when a delayed message is to be due: at a time, or so much later than it was to be, earlier if that is negative.
type Due struct {
	At time.Time // zero: By counts
	By time.Duration
}

// RescheduleDelayed looks at the next limit delayed messages of a stretch and gives those that a filter chooses another due
// time, never before now, with a row of history for each. Those that are to be due then anyway, and those that are to be due
// earlier than they can, because they are due already, are left alone. It locks the messages and passes over those that
// others hold: those are being moved.
//
// The due time is the order of the table. Unless the stretch is read from its later end where messages are moved to a
// later time, it meets them again.
func (s delayedQueries) RescheduleDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, to Due, operation int64, limit int) (DelayedChange, error) {
	due, unless := `greatest($3::timestamptz, clock_timestamp())`, `due_at <> $3::timestamptz AND (due_at > statement_timestamp() OR $3::timestamptz > statement_timestamp())`
	var param any = to.At
	if to.At.IsZero() {
		due, unless, param = `greatest(d.due_at + $3::bigint * interval '1 microsecond', clock_timestamp())`, `true`, to.By.Microseconds()
		if to.By < 0 {
			// Not clock_timestamp(): they would come to lie in front of what is read next.
			due, unless = `greatest(d.due_at + $3::bigint * interval '1 microsecond', statement_timestamp())`, `due_at > statement_timestamp()`
		}
	}
	return s.changeDelayed(ctx, db, st, f, limit, 0, fmt.Sprintf(`
			UPDATE %s d SET due_at = %s FROM picked p WHERE d.due_at = p.due_at AND d.seq = p.seq
			RETURNING d.id, d.queue, d.attempt, d.error, d.due_at`, s.table("delayed"), due), unless, "reschedule", operation, param)
}

// changeDelayed runs one batch of CancelDelayed or RescheduleDelayed, whose statement has its own parameters from $3 on. It
// takes no more bytes than given, 0: however many, but one message at least, for where bodies are left where they are. It
// asks the filter before it locks: nothing of a delayed message changes but its due time, and a row whose due time has
// changed meanwhile is not found any more.
func (s delayedQueries) changeDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, limit int, bytes int64, change, unless, what string, operation int64, more ...any) (DelayedChange, error) {
	st.Sized = bytes > 0
	read, where, order, args := s.reading(st, f, limit, append([]any{limit, operation}, more...)...)
	fit := `SELECT * FROM read`
	if st.Sized {
		args = append(args, bytes)
		fit = fmt.Sprintf(`SELECT * FROM (SELECT *, sum(size) OVER (ORDER BY %s) - size < $%d::bigint AS fits FROM read) f WHERE fits`, order, len(args))
	}
	var c DelayedChange
	var due *time.Time
	var seq *int64
	var channel *string
	err := db.QueryRow(ctx, fmt.Sprintf(`
		WITH %[1]s, fit AS MATERIALIZED (
			%[11]s
		), chosen AS MATERIALIZED (
			SELECT due_at, seq FROM fit WHERE %[3]s AND %[4]s
		), picked AS MATERIALIZED (
			SELECT d.due_at, d.seq FROM chosen c JOIN %[2]s d ON d.due_at = c.due_at AND d.seq = c.seq FOR UPDATE OF d SKIP LOCKED
		), changed AS (%[5]s
		), told AS (
			INSERT INTO %[6]s (message, what, operation, queue, attempts, error)
			SELECT id, '%[7]s', $2::bigint, queue, attempt, error FROM changed
		), last AS (
			SELECT due_at, seq FROM fit WHERE (SELECT count(*) FROM fit) >= $1::bigint OR (SELECT count(*) FROM fit) < (SELECT count(*) FROM read)
			ORDER BY %[8]s OFFSET (SELECT greatest(count(*) - 1, 0) FROM fit) LIMIT 1
		)
		SELECT count(*), (SELECT due_at FROM last), (SELECT seq FROM last),
			CASE WHEN min(due_at) < clock_timestamp() + interval '%[9]d milliseconds' THEN 'sqlq_' || %[10]s::regclass::oid END
		FROM changed`, read, s.table("delayed"), where, unless, change, s.table("history"), what, order, store.Soon.Milliseconds(), quote(s.table("delayed")), fit),
		args...).Scan(&c.N, &due, &seq, &channel)
	if due != nil {
		c.Next = &DelayedKey{DueAt: *due, Seq: *seq}
	}
	c.Channel = deref(channel)
	return c, err
}
