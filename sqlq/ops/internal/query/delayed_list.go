package query

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// DelayedKey is a place in the order of the delayed messages.
type DelayedKey struct {
	DueAt time.Time
	Seq   int64
}

// DelayedRow is a delayed message that an operator looks at. The lists leave Headers and Body out, which can be large.
type DelayedRow struct {
	DueAt     time.Time
	Seq       int64
	DueIn     time.Duration // by the clock of the database; negative: it is overdue
	ID        string
	SentAt    time.Time
	ExpiresAt *time.Time // nil: never
	Attempt   int        // attempts already made
	Why       string     // delay or retry
	Queue     string
	Type      string
	Error     *string         // nil: no attempt has failed
	Headers   json.RawMessage // nil: none
	Body      []byte
}

// Key is the row's place in the order of the delayed messages.
func (d DelayedRow) Key() DelayedKey { return DelayedKey{DueAt: d.DueAt, Seq: d.Seq} }

// DelayedStretch is a stretch of the delayed messages, and the direction in which it is read, a chunk at a time.
type DelayedStretch struct {
	Newest bool        // those due last come first
	From   *DelayedKey // begins behind this place; nil: at the end of the table
	To     *DelayedKey // ends with this place; nil: at the other end
	UpTo   int64       // only messages with a seq up to this; 0: all
	Sized  bool        // each with its size, for which a role must see bodies and headers
}

// reading is a CTE "read" with the next limit delayed messages of a stretch that are due at the times of a filter, and
// the condition for the rest of the filter. It is what bounds every statement: predicates that no index serves are asked
// of these rows alone. Relies on the primary key.
func (s delayedQueries) reading(st DelayedStretch, f Filter, limit int, args ...any) (read, where, order string, _ []any) {
	param := func(v any) int { args = append(args, v); return len(args) }
	direction, beyond, within := "", ">", "<="
	if st.Newest {
		direction, beyond, within = " DESC", "<", ">="
	}
	order = "due_at" + direction + ", seq" + direction
	times, _, args := s.where(filteredDelayed, Filter{Since: f.Since, Until: f.Until}, args...)
	f.Since, f.Until = Moment{}, Moment{}
	if st.From != nil {
		times += fmt.Sprintf(` AND (due_at, seq) %s ($%d::timestamptz, $%d::bigint)`, beyond, param(st.From.DueAt), param(st.From.Seq))
	}
	if st.To != nil {
		times += fmt.Sprintf(` AND (due_at, seq) %s ($%d::timestamptz, $%d::bigint)`, within, param(st.To.DueAt), param(st.To.Seq))
	}
	if f.Keys != nil {
		due, seqs := make([]time.Time, len(f.Keys)), make([]int64, len(f.Keys))
		for i, k := range f.Keys {
			due[i], seqs[i] = k.DueAt, k.Seq
		}
		times += fmt.Sprintf(` AND (due_at, seq) IN (SELECT * FROM unnest($%d::timestamptz[], $%d::bigint[]))`, param(due), param(seqs))
	}
	columns := `due_at, seq, id, sent_at, expires_at, attempt, why, queue, type, error`
	if len(f.Headers) > 0 {
		columns += `, headers`
	}
	if f.Body != "" {
		columns += `, body`
	}
	if st.Sized {
		columns += `, ` + stored + ` AS size`
	}
	read = fmt.Sprintf(`read AS MATERIALIZED (
			SELECT %s FROM %s WHERE %s ORDER BY %s LIMIT %d
		)`, columns, s.table("delayed"), times, order, limit)
	if st.UpTo != 0 {
		where = fmt.Sprintf(`seq <= $%d::bigint AND `, param(st.UpTo))
	}
	indexed, scanned, args := s.where(filteredDelayed, f, args...)
	return read, where + indexed + ` AND ` + scanned, order, args
}

// FindDelayed returns where the delayed messages with these numbers or ids lie. There is no index for that, which every delayed
// retry would pay for (76 bytes of WAL beside 541, and something for vacuum): it reads the table, at about 0.1 s a million
// messages. Locks nothing.
func (s delayedQueries) FindDelayed(ctx context.Context, db DBTX, seqs []int64, ids []string) ([]DelayedKey, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT due_at, seq FROM %s WHERE seq = ANY ($1::bigint[]) OR id = ANY ($2::text[]::uuid[])`, s.table("delayed")), seqs, ids)
	if err != nil {
		return nil, err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DelayedKey])
	if keys == nil {
		keys = []DelayedKey{}
	}
	return keys, err
}

// ListDelayed looks at the next chunk delayed messages of a stretch and returns up to limit of those that a filter
// chooses, in order, and the place it came to: nil at the end of the stretch. Locks nothing.
func (s delayedQueries) ListDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, chunk, limit int) (found []DelayedRow, next *DelayedKey, err error) {
	read, where, order, args := s.reading(st, f, chunk, chunk, limit)
	// The last row of the chunk comes with every row, and alone where nothing was chosen.
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH %[1]s, last AS (
			SELECT due_at AS last_due, seq AS last_seq FROM read ORDER BY %[2]s OFFSET $1::bigint - 1 LIMIT 1
		), chosen AS (
			SELECT due_at, seq, -(%[4]s) AS due_in, id::text, sent_at, expires_at,
				attempt::int, why, queue, type, error
			FROM read WHERE %[3]s ORDER BY %[2]s LIMIT $2::bigint
		)
		SELECT last_due, last_seq, chosen.* FROM chosen FULL JOIN last ON true ORDER BY %[2]s`, read, order, where, elapsed(`due_at`)), args...)
	if err != nil {
		return nil, nil, err
	}
	var lastDue *time.Time
	var lastSeq, seq, dueIn *int64
	var dueAt, sentAt, expiresAt *time.Time
	var attempt *int
	var id, why, queue, messageType, failure *string
	_, err = pgx.ForEachRow(rows, []any{&lastDue, &lastSeq, &dueAt, &seq, &dueIn, &id, &sentAt, &expiresAt, &attempt, &why, &queue, &messageType, &failure}, func() error {
		if lastDue != nil {
			next = &DelayedKey{DueAt: *lastDue, Seq: *lastSeq}
		}
		if seq != nil {
			found = append(found, DelayedRow{DueAt: *dueAt, Seq: *seq, DueIn: *duration(dueIn), ID: *id, SentAt: *sentAt,
				ExpiresAt: expiresAt, Attempt: *attempt, Why: *why, Queue: *queue, Type: *messageType, Error: failure})
		}
		return nil
	})
	if len(found) == limit { // there may be more in this chunk
		last := found[limit-1].Key()
		next = &last
	}
	return found, next, err
}

// FillDelayed fills in the headers and the body of a delayed message; pgx.ErrNoRows when it is not there any more. Locks
// nothing. Relies on the primary key.
func (s delayedQueries) FillDelayed(ctx context.Context, db DBTX, d *DelayedRow) error {
	return db.QueryRow(ctx, fmt.Sprintf(`
		SELECT headers::text, body FROM %s WHERE due_at = $1::timestamptz AND seq = $2::bigint`, s.table("delayed")), d.DueAt, d.Seq).
		Scan(&d.Headers, &d.Body)
}
