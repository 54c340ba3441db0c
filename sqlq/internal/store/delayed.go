package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// soon is how close a due time must be for the movers to be told: they look by themselves once a second.
const soon = 2 * time.Second

// dueAt is the due time of a delayed message: $1 at a fixed time or $2 microseconds from now, never in the past.
const dueAt = `greatest(coalesce($1::timestamptz, clock_timestamp() + $2::bigint * interval '1 microsecond'), clock_timestamp())`

// Defer stores one delayed message, in the caller's transaction or alone: for a queue, or, where queue is "", a copy for
// each queue that is subscribed to its type at this moment. When the message is due soon the movers must be told: with
// notify that is part of the transaction, else it returns the channel to notify after the commit. It passes single
// values only, which every driver can.
func (s *Schema) Defer(ctx context.Context, db Querier, queue string, m Outgoing, notify bool) (channel string, err error) {
	sql, args := s.deferring(queue, m, notify)
	var c *string
	err = db.QueryRow(ctx, sql, args...).Scan(&c)
	return deref(c), err
}

// QueueDefer is Defer as part of a round trip; then gets the channel to notify after the commit.
func (s *Schema) QueueDefer(b *pgx.Batch, queue string, m Outgoing, then func(channel string)) {
	sql, args := s.deferring(queue, m, false)
	b.Queue(sql, args...).QueryRow(scanChannel(then))
}

func (s *Schema) deferring(queue string, m Outgoing, notify bool) (sql string, args []any) {
	args = []any{timeOrNil(m.DueAt), m.Delay.Microseconds(), uuidText(m.ID), micros(m.TTL), m.Type, m.headers(), m.Body, notify}
	if queue == "" {
		return fmt.Sprintf(`
		SELECT CASE WHEN c.channel IS NOT NULL AND $8::boolean THEN pg_notify(c.channel, '')::text ELSE c.channel END
		FROM %s($3::uuid, $5::text, $6::text, $7::bytea, %s, $4::bigint * interval '1 microsecond') AS c (channel)`,
			s.table("publish_delayed"), dueAt), args
	}
	// queue_table refuses a queue that does not exist, as the insert into its table would.
	return fmt.Sprintf(`
		WITH stored AS (
			INSERT INTO %[1]s (due_at, id, expires_at, why, type, headers, body, queue)
			SELECT %[2]s, $3::uuid, clock_timestamp() + $4::bigint * interval '1 microsecond', 'delay', $5::text, $6::json, $7::bytea, $9::text
			WHERE %[3]s($9::text) IS NOT NULL
		)
		SELECT CASE WHEN %[2]s < clock_timestamp() + interval '%[4]d milliseconds'
			THEN CASE WHEN $8::boolean THEN pg_notify('sqlq_' || %[5]s::regclass::oid, '')::text ELSE 'sqlq_' || %[5]s::regclass::oid END END`,
		s.table("delayed"), dueAt, s.table("queue_table"), soon.Milliseconds(), quote(s.table("delayed"))), append(args, queue)
}

// Moved is what became of the delayed messages of a queue that were due.
type Moved struct {
	Queue   string
	N       int
	LastDue time.Time // the latest due time among them
	Channel string    // to notify after the commit; "": no receiver of the queue sleeps
}

// MoveDue moves up to limit messages that are due, those due first, to their queues, and those whose queue is gone to the
// error table. Rows that others hold are passed over. It looks from a due time on, so that it need not step over the
// dead entries of messages moved before. Bodies stay inside the server, and it is done as the owner of the schema: the
// process that leads may have no right to the queues of others. Relies on the primary key.
func (s *Schema) MoveDue(ctx context.Context, db DBTX, from time.Time, limit int) ([]Moved, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT queue, moved, last_due, coalesce(channel, '') FROM %s($1::timestamptz, $2::bigint)`, s.table("move_due")), from, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Moved])
}

// NextDue returns how long it is until the next delayed message from a due time on is due, 0 when it is overdue; false
// when there is none. Relies on the primary key.
func (s *Schema) NextDue(ctx context.Context, db DBTX, from time.Time) (time.Duration, bool, error) {
	var us *int64
	err := db.QueryRow(ctx, fmt.Sprintf(`
		SELECT (extract(epoch FROM %s($1::timestamptz) - clock_timestamp()) * 1000000)::bigint`, s.table("next_due")), from).Scan(&us)
	if err != nil || us == nil {
		return 0, false, err
	}
	return max(0, time.Duration(*us)*time.Microsecond), true, nil
}

// Clock returns the time by the clock of the database.
func (s *Schema) Clock(ctx context.Context, db DBTX) (now time.Time, err error) {
	err = db.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
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
}

// reading is a CTE "read" with the next limit delayed messages of a stretch that are due at the times of a filter, and
// the condition for the rest of the filter. It is what bounds every statement: predicates that no index serves are asked
// of these rows alone. Relies on the primary key.
func (s *Schema) reading(st DelayedStretch, f Filter, limit int, args ...any) (read, where, order string, _ []any) {
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
func (s *Schema) FindDelayed(ctx context.Context, db DBTX, seqs []int64, ids []string) ([]DelayedKey, error) {
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
func (s *Schema) ListDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, chunk, limit int) (found []DelayedRow, next *DelayedKey, err error) {
	read, where, order, args := s.reading(st, f, chunk, chunk, limit)
	// The last row of the chunk comes with every row, and alone where nothing was chosen.
	rows, err := db.Query(ctx, fmt.Sprintf(`
		WITH %[1]s, last AS (
			SELECT due_at AS last_due, seq AS last_seq FROM read ORDER BY %[2]s OFFSET $1::bigint - 1 LIMIT 1
		), chosen AS (
			SELECT due_at, seq, (extract(epoch FROM due_at - clock_timestamp()) * 1000000)::bigint AS due_in, id::text, sent_at, expires_at,
				attempt::int, why, queue, type, error
			FROM read WHERE %[3]s ORDER BY %[2]s LIMIT $2::bigint
		)
		SELECT last_due, last_seq, chosen.* FROM chosen FULL JOIN last ON true ORDER BY %[2]s`, read, order, where), args...)
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
			found = append(found, DelayedRow{DueAt: *dueAt, Seq: *seq, DueIn: time.Duration(*dueIn) * time.Microsecond, ID: *id, SentAt: *sentAt,
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
func (s *Schema) FillDelayed(ctx context.Context, db DBTX, d *DelayedRow) error {
	return db.QueryRow(ctx, fmt.Sprintf(`
		SELECT headers::text, body FROM %s WHERE due_at = $1::timestamptz AND seq = $2::bigint`, s.table("delayed")), d.DueAt, d.Seq).
		Scan(&d.Headers, &d.Body)
}

// FindByKey makes the statements of a transaction look rows up by their keys, whatever the planner believes of the size of
// tables whose statistics are old.
func (s *Schema) FindByKey(ctx context.Context, tx DBTX) error {
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
// history for each. It locks them and passes over those that others hold: those are being moved.
func (s *Schema) CancelDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, operation int64, limit int) (DelayedChange, error) {
	return s.changeDelayed(ctx, db, st, f, limit, fmt.Sprintf(`
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
func (s *Schema) RescheduleDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, to Due, operation int64, limit int) (DelayedChange, error) {
	due, unless := `greatest($3::timestamptz, clock_timestamp())`, `due_at <> $3::timestamptz AND (due_at > statement_timestamp() OR $3::timestamptz > statement_timestamp())`
	var param any = to.At
	if to.At.IsZero() {
		due, unless, param = `greatest(d.due_at + $3::bigint * interval '1 microsecond', clock_timestamp())`, `true`, to.By.Microseconds()
		if to.By < 0 {
			// Not clock_timestamp(): they would come to lie in front of what is read next.
			due, unless = `greatest(d.due_at + $3::bigint * interval '1 microsecond', statement_timestamp())`, `due_at > statement_timestamp()`
		}
	}
	return s.changeDelayed(ctx, db, st, f, limit, fmt.Sprintf(`
			UPDATE %s d SET due_at = %s FROM picked p WHERE d.due_at = p.due_at AND d.seq = p.seq
			RETURNING d.id, d.queue, d.attempt, d.error, d.due_at`, s.table("delayed"), due), unless, "reschedule", operation, param)
}

// changeDelayed runs one batch of CancelDelayed or RescheduleDelayed, whose statement has its own parameters from $3 on. It
// asks the filter before it locks: nothing of a delayed message changes but its due time, and a row whose due time has
// changed meanwhile is not found any more.
func (s *Schema) changeDelayed(ctx context.Context, db DBTX, st DelayedStretch, f Filter, limit int, change, unless, what string, operation int64, more ...any) (DelayedChange, error) {
	read, where, order, args := s.reading(st, f, limit, append([]any{limit, operation}, more...)...)
	var c DelayedChange
	var due *time.Time
	var seq *int64
	var channel *string
	err := db.QueryRow(ctx, fmt.Sprintf(`
		WITH %[1]s, chosen AS MATERIALIZED (
			SELECT due_at, seq FROM read WHERE %[3]s AND %[4]s
		), picked AS MATERIALIZED (
			SELECT d.due_at, d.seq FROM chosen c JOIN %[2]s d ON d.due_at = c.due_at AND d.seq = c.seq FOR UPDATE OF d SKIP LOCKED
		), changed AS (%[5]s
		), told AS (
			INSERT INTO %[6]s (message, what, operation, queue, attempts, error)
			SELECT id, '%[7]s', $2::bigint, queue, attempt, error FROM changed
		), last AS (
			SELECT due_at, seq FROM read ORDER BY %[8]s OFFSET $1::bigint - 1 LIMIT 1
		)
		SELECT count(*), (SELECT due_at FROM last), (SELECT seq FROM last),
			CASE WHEN min(due_at) < clock_timestamp() + interval '%[9]d milliseconds' THEN 'sqlq_' || %[10]s::regclass::oid END
		FROM changed`, read, s.table("delayed"), where, unless, change, s.table("history"), what, order, soon.Milliseconds(), quote(s.table("delayed"))),
		args...).Scan(&c.N, &due, &seq, &channel)
	if due != nil {
		c.Next = &DelayedKey{DueAt: *due, Seq: *seq}
	}
	c.Channel = deref(channel)
	return c, err
}
