package store

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Message is a message as it lies in a queue or, leased, in the leased table.
type Message struct {
	Seq     int64      // its place in the queue
	Row     pgtype.TID // where the held row lies; it stays there for as long as it is held
	Lease   int64      // names the lease; 0: the row is in the queue's table
	Expires *time.Time // of one that was removed, when its time to live ends; nil: never
	ID      [16]byte
	Type    string
	Headers []byte // JSON object of strings; nil: none
	Body    []byte // nil: larger than the fetch wanted to carry, see FetchBody
	Size    int    // bytes of the body
	Attempt int    // attempts made before this one
	SentAt  time.Time
	Left    *time.Duration // time to live that was left at the fetch, negative when it had passed; nil: for ever
}

// fetched are the columns that scanMessages reads after the row's key. $3 bounds the body that comes along. What expires at
// infinity never does; the difference to infinity is an error.
const fetched = `m.attempt, m.seq, m.id, m.sent_at,
	CASE WHEN m.expires_at < 'infinity' THEN (extract(epoch FROM greatest(m.expires_at, 'epoch') - clock_timestamp()) * 1000000)::bigint END,
	m.type, m.headers::text, octet_length(m.body), CASE WHEN octet_length(m.body) <= $3 THEN m.body END`

// Leave says which messages a fetch leaves where they are.
type Leave struct {
	Seqs   []int64  // those with these seqs
	Types  []string // those of these types
	AllBut string   // all but those of this type; "": none
}

// where returns the condition that a fetch adds to its own, whose parameters are args; most often it is empty.
func (l Leave) where(args ...any) (cond string, _ []any) {
	if len(l.Seqs) > 0 {
		args = append(args, l.Seqs)
		cond += fmt.Sprintf(` AND seq <> ALL ($%d::bigint[])`, len(args))
	}
	if len(l.Types) > 0 {
		args = append(args, l.Types)
		cond += fmt.Sprintf(` AND type <> ALL ($%d::text[])`, len(args))
	}
	if l.AllBut != "" {
		args = append(args, l.AllBut)
		cond += fmt.Sprintf(` AND type = $%d::text`, len(args))
	}
	return cond, args
}

// FetchHeld locks up to limit ready messages after a seq, in order, and appends them to into. Rows that others hold are
// passed over, and so is what leave says. The locks last to the end of the transaction. Bodies above maxBody bytes are locked
// but left behind. Relies on the queue's primary key.
func (s *Schema) FetchHeld(b *pgx.Batch, queue string, after int64, limit, maxBody int, leave Leave, into *[]Message) {
	cond, args := leave.where(after, limit, maxBody)
	sql := fmt.Sprintf(`
		SELECT m.ctid, `+fetched+`
		FROM %s m WHERE seq > $1%s ORDER BY m.seq LIMIT $2
		FOR UPDATE SKIP LOCKED`, s.ready(queue), cond)
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var m Message
		return scanMessages(rows, &m, &m.Row, into)
	})
}

// FetchLeased moves up to limit ready messages after a seq, and not after upTo, into the leased table in the name of an instance and appends
// them to into. Once it is committed the messages are the instance's until it settles them or dies; then its heirs know
// which messages it had in hand. Rows that others hold are passed over, and so is what leave says. Relies on the queue's
// primary key.
func (s *Schema) FetchLeased(b *pgx.Batch, queue string, instance int32, after, upTo int64, limit int, leave Leave, into *[]Message) {
	cond, args := leave.where(instance, limit, math.MaxInt32, queue, after, upTo)
	sql := fmt.Sprintf(`
		WITH picked AS MATERIALIZED (
			SELECT seq FROM %[1]s WHERE seq > $5 AND seq <= $6%[3]s ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED
		), taken AS (
			DELETE FROM %[1]s q USING picked WHERE q.seq = picked.seq RETURNING q.*
		), m AS (
			INSERT INTO %[2]s (instance, queue, seq, id, sent_at, expires_at, attempt, type, headers, body)
			SELECT $1::int, $4::text, seq, id, sent_at, expires_at, attempt, type, headers, body FROM taken ORDER BY seq
			RETURNING *
		)
		SELECT m.lease, `+fetched+` FROM m ORDER BY m.lease`, s.ready(queue), s.table("leased"), cond)
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var m Message
		return scanMessages(rows, &m, &m.Lease, into)
	})
}

// scanMessages appends rows to into, each by way of m, of which key is the field for the first column. The targets are
// made once, and what many messages can share they share: this is where a receiver would spend most of its memory.
func scanMessages(rows pgx.Rows, m *Message, key any, into *[]Message) error {
	defer rows.Close()
	var left *int64
	var body chunked
	targets := []any{key, &m.Attempt, &m.Seq, &m.ID, (*stamp)(&m.SentAt), &left, (*repeated)(&m.Type), &m.Headers, &m.Size, &body}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		m.Body, m.Left = body.value, duration(left)
		*into = append(*into, *m)
	}
	return rows.Err()
}

// repeated is a text that is often the same as in the row before.
type repeated string

// ScanBytes implements pgtype.BytesScanner.
func (r *repeated) ScanBytes(b []byte) error {
	if string(b) != string(*r) {
		*r = repeated(b)
	}
	return nil
}

// chunked makes the values of a column parts of a few large allocations. The smallest of them keeps its chunk alive, so
// chunks begin small, for small batches, and large values are allocated by themselves.
type chunked struct {
	value []byte // of the row scanned last
	chunk []byte
}

const maxChunk = 32 << 10

// ScanBytes implements pgtype.BytesScanner.
func (c *chunked) ScanBytes(b []byte) error {
	switch {
	case len(b) == 0 || len(b) > maxChunk/8:
		c.value = bytes.Clone(b) // nil stays nil
		return nil
	case len(b) > cap(c.chunk)-len(c.chunk):
		c.chunk = make([]byte, 0, min(max(2*cap(c.chunk), len(b)), maxChunk))
	}
	from := len(c.chunk)
	c.chunk = append(c.chunk, b...)
	c.value = c.chunk[from:len(c.chunk):len(c.chunk)]
	return nil
}

// FetchBody returns the body of one message that the transaction holds or the instance leases. Locks nothing further.
func (s *Schema) FetchBody(ctx context.Context, db DBTX, from From, key int64) (body []byte, err error) {
	table, id, cond := s.rows(from)
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT body FROM %s WHERE %s %s = $1`, table, cond, id), key).Scan(&body)
	return body, err
}

// LastGiven returns the highest seq that was given out in a queue, also to transactions that have not committed; 0 in a fresh
// one. Locks nothing.
func (s *Schema) LastGiven(ctx context.Context, db DBTX, queue string) (last int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT last_value - (NOT is_called)::int FROM %s`, s.table("s_"+queue))).Scan(&last)
	return last, err
}

// AnyReady says whether there are messages after a seq and not after upTo, held ones included. Locks nothing. Relies on the
// queue's primary key.
func (s *Schema) AnyReady(ctx context.Context, db DBTX, queue string, after, upTo int64) (any bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE seq > $1 AND seq <= $2)`, s.ready(queue)), after, upTo).Scan(&any)
	return any, err
}

// Relock locks those of the given messages that are still in the queue and free, and returns their seqs. For messages
// whose transaction was lost. Relies on the queue's primary key.
func (s *Schema) Relock(ctx context.Context, db DBTX, queue string, seqs []int64) ([]int64, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT seq FROM %s WHERE seq = ANY ($1::bigint[]) ORDER BY seq FOR UPDATE SKIP LOCKED`, s.ready(queue)), seqs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}
