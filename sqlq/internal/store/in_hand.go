package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// InHand are messages that were fetched, held or leased: what is read of them, and how they end.
type InHand struct{ base }

// From says where the rows of messages in hand are: in the queue's own table, held by the transaction, or leased.
// Either way the settling transaction has them locked before it settles: held ones since the fetch, leased ones by
// Leases.Lock.
type From struct {
	Queue    string
	Instance int32 // whose leases; 0: the queue's table, keyed by seq
}

// rows returns the table of the rows, the column that keys them, and a condition to go before it, with its AND.
func (s base) rows(from From) (table, key, cond string) {
	if from.Instance == 0 {
		return s.ready(from.Queue), "seq", ""
	}
	return s.table("leased"), "lease", fmt.Sprintf("instance = %d AND", from.Instance)
}

// taken is a CTE that deletes the rows keyed by $1 and returns what is left of them with the key as "key".
func (s base) taken(from From) string {
	table, key, cond := s.rows(from)
	return fmt.Sprintf(`taken AS (
			DELETE FROM %s WHERE %s %s = ANY ($1::bigint[])
			RETURNING %[3]s AS key, seq, id, sent_at, expires_at, type, headers, body
		)`, table, cond, key)
}

// Complete removes handled messages. Relies on the primary key of the table.
func (s InHand) Complete(b *pgx.Batch, from From, keys []int64) {
	table, key, cond := s.rows(from)
	b.Queue(fmt.Sprintf(`DELETE FROM %s WHERE %s %s = ANY ($1::bigint[])`, table, cond, key), keys)
}

// Retry is a message that is to be tried again later.
type Retry struct {
	Key     int64
	Attempt int // attempts made
	Delay   time.Duration
	Error   string
	// Headers are the message's headers from now on; nil: they stay. With Stamped they end before the value of one more,
	// which is the time of this, its first, failure, by the database: {"a":"b","sqlq-first-failed-at":"
	Headers *string
	Stamped bool
}

// headersOf is an SQL expression: the headers of the message t as the retry r has them.
const headersOf = `coalesce((r.headers || CASE WHEN r.stamped
				THEN to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '"}' ELSE '' END)::json, t.headers)`

// Delay moves messages to the delayed ones for their next attempt. Bodies stay inside the server. When one of them is due
// soon then gets the channel on which to tell the movers after the commit. Relies on the primary key of the table that
// they are in.
func (s InHand) Delay(b *pgx.Batch, from From, retries []Retry, then func(channel string)) {
	s.delay(b, s.taken(from), from.Queue, retries, then)
}

// delay stores retries among the delayed, of messages that the CTE "taken" has by key. Its parameters are the keys, $1, and
// whatever comes from $8 on.
func (s base) delay(b *pgx.Batch, taken, queue string, retries []Retry, then func(channel string), more ...any) {
	keys, attempts, delays := make([]int64, len(retries)), make([]int16, len(retries)), make([]int64, len(retries))
	errs, headers, stamped := make([]string, len(retries)), make([]*string, len(retries)), make([]bool, len(retries))
	first := retries[0].Delay
	for i, r := range retries {
		keys[i], attempts[i], delays[i] = r.Key, smallint(r.Attempt), r.Delay.Microseconds()
		errs[i], headers[i], stamped[i] = r.Error, r.Headers, r.Stamped
		first = min(first, r.Delay)
	}
	q := b.Queue(fmt.Sprintf(`
		WITH %s, stored AS (
			INSERT INTO %s (due_at, id, sent_at, expires_at, attempt, why, queue, type, headers, body, error)
			SELECT clock_timestamp() + r.delay * interval '1 microsecond', t.id, t.sent_at, t.expires_at, r.attempt, 'retry', $7, t.type,
				%s, t.body, r.error
			FROM taken t JOIN unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::boolean[])
				r (key, attempt, delay, error, headers, stamped) ON r.key = t.key
		)
		SELECT 'sqlq_' || %s::regclass::oid`, taken, s.table("delayed"), headersOf, quote(s.table("delayed"))),
		append([]any{keys, attempts, delays, errs, headers, stamped, queue}, more...)...)
	if first < soon {
		q.QueryRow(scanChannel(then))
	}
}

// Failure is a message that goes to the error table, with what is kept of its last attempt.
type Failure struct {
	Key         int64    `json:"key"`
	Attempts    int      `json:"attempts"`
	Endpoint    string   `json:"endpoint"`
	Host        string   `json:"host"`
	ErrorType   string   `json:"error_type"`
	Message     string   `json:"message"`
	Chain       []string `json:"chain"`
	Stack       *string  `json:"stack"`
	Fingerprint string   `json:"fingerprint"`

	// What the engine's bookkeeping headers said.
	FirstFailedAt *time.Time `json:"first_failed_at"` // nil: now; a time to come counts as now too
	Replays       int        `json:"replays"`
	// Headers are the message's without those; nil: they stay as they are. "" becomes null.
	Headers *string `json:"-"`
}

// Fail moves messages to the error table. Bodies stay inside the server. Relies on the primary key of the table that they
// are in.
func (s InHand) Fail(b *pgx.Batch, from From, failures []Failure) error {
	return s.fail(b, s.taken(from), from.Queue, failures)
}

// fail stores failures in the error table, of messages that the CTE "taken" has by key. A type is cut to the length that one
// may have, because the table's indexes would refuse a row with a much longer one, and nobody handles it. Its parameters are the keys, $1, and
// whatever comes from $5 on.
func (s base) fail(b *pgx.Batch, taken, queue string, failures []Failure, more ...any) error {
	keys, headers := make([]int64, len(failures)), make([]*string, len(failures))
	for i, f := range failures {
		keys[i], headers[i] = f.Key, f.Headers
	}
	details, err := json.Marshal(failures)
	if err != nil {
		return fmt.Errorf("encode failures: %w", err)
	}
	b.Queue(fmt.Sprintf(`
		WITH %s
		INSERT INTO %s (id, queue, endpoint, host, type, headers, body, attempts, replays, sent_at, expires_at,
			first_failed_at, error_type, message, chain, stack, fingerprint)
		SELECT t.id, $4, f.endpoint, f.host, left(t.type, 200), CASE WHEN h.headers IS NULL THEN t.headers ELSE nullif(h.headers, '')::json END,
			t.body, f.attempts, f.replays, t.sent_at, t.expires_at, least(f.first_failed_at, clock_timestamp()),
			f.error_type, f.message, f.chain, f.stack, f.fingerprint
		FROM taken t
			JOIN unnest($1::bigint[], $2::text[]) h (key, headers) ON h.key = t.key
			JOIN jsonb_to_recordset($3::text::jsonb) f (key bigint, attempts int, endpoint text, host text, replays int,
				first_failed_at timestamptz, error_type text, message text, chain text[], stack text, fingerprint text) ON f.key = t.key
		ORDER BY t.key`, taken, s.table("error")),
		append([]any{keys, headers, string(details), queue}, more...)...)
	return nil
}

// Sizes are how large a message is, and what of it is short.
type Sizes struct {
	ID            [16]byte
	Type          string // its beginning, if it is long
	LongType      bool
	Headers, Body int // bytes
}

// Sizes returns how large a message is that the transaction holds or the instance leases. Locks nothing further.
func (s InHand) Sizes(ctx context.Context, db DBTX, from From, key int64) (sizes Sizes, err error) {
	table, id, cond := s.rows(from)
	err = db.QueryRow(ctx, fmt.Sprintf(`
		SELECT id, CASE WHEN octet_length(type) <= 1000 THEN type ELSE left(type, 200) || '…' END, octet_length(type) > 1000,
			coalesce(octet_length(headers::text), 0), octet_length(body)
		FROM %s WHERE %s %s = $1`, table, cond, id), key).Scan(&sizes.ID, &sizes.Type, &sizes.LongType, &sizes.Headers, &sizes.Body)
	return sizes, err
}

// Rest returns the headers and the body of one message that the transaction holds or the instance leases. Locks
// nothing further.
func (s InHand) Rest(ctx context.Context, db DBTX, from From, key int64) (headers, body []byte, err error) {
	table, id, cond := s.rows(from)
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT headers::text, body FROM %s WHERE %s %s = $1`, table, cond, id), key).Scan(&headers, &body)
	return headers, body, err
}
