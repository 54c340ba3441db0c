package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Ready are the messages in the tables of queues.
type Ready struct{ base }

// Message is a message as it lies in a queue or, leased, in the leased table.
type Message struct {
	Seq     int64      // its place in the queue
	Row     pgtype.TID // where the held row lies; it stays there for as long as it is held
	Lease   int64      // names the lease; 0: the row is in the queue's table
	Expires *time.Time // of one that was removed, when its time to live ends; nil: never
	ID      [16]byte
	Type    string
	Headers []byte // JSON object of strings; nil: none
	Body    []byte // nil: larger than the fetch wanted to carry, see InHand.Rest
	Size    int    // bytes of the body
	Stays   bool   // it was seen, and is left in its queue: of it only Seq and Size are known
	Attempt int    // attempts made before this one
	SentAt  time.Time
	Left    *time.Duration // time to live that was left at the fetch, negative when it had passed; nil: for ever
}

// MaxHeaders bounds the JSON of headers that a fetch brings, in bytes: the 64 KiB that senders may have, each byte of which JSON
// may need six for, and the library's own. It stands as a number in the statements.
const MaxHeaders = 524288

// fetched are the columns that scanMessages reads after the row's key, and fetchedBody is the last. $3 bounds, in bytes, the
// headers and the body that come along: of headers that are longer comes a hyphen (Unread). To look at the size of a body the
// server need not read it; headers it must, unless they are short as they are stored. What expires at infinity never does; the
// difference to infinity is an error.
const fetched = `m.attempt, m.seq, m.id, m.sent_at,
	CASE WHEN m.expires_at < 'infinity' THEN (extract(epoch FROM greatest(m.expires_at, 'epoch') - clock_timestamp()) * 1000000)::bigint END,
	CASE WHEN octet_length(m.type) <= 1000 THEN m.type ELSE left(m.type, 200) || '…' END,
	CASE WHEN pg_column_size(m.headers) > 300 AND octet_length(m.headers::text) > least($3, 524288) THEN '-' ELSE m.headers::text END,
	octet_length(m.body), `

const fetchedBody = `CASE WHEN octet_length(m.body) <= $3 THEN m.body END`

// Where says which messages of a queue a fetch is after.
type Where struct {
	After    int64   // those with higher seqs
	Limit    int     // so many at most
	UpTo     int64   // and none with a higher seq; 0: no bound
	From, To []int64 // and before those the ones in these ranges, both ends included, in order, none above After
	Leave    Leave
}

// Leave says which messages a fetch leaves where they are.
type Leave struct {
	Seqs   []int64  // those with these seqs
	Types  []string // those of these types
	AllBut string   // all but those of this type; "": none
}

// cond returns what a fetch adds to its condition, most often nothing, and its parameters, which it adds to args.
func (w Where) cond(args []any) (cond string, _ []any) {
	add := func(format string, value any) {
		args = append(args, value)
		cond += fmt.Sprintf(format, len(args))
	}
	if w.UpTo > 0 {
		add(` AND seq <= $%d::bigint`, w.UpTo)
	}
	if len(w.Leave.Seqs) > 0 {
		add(` AND seq <> ALL ($%d::bigint[])`, w.Leave.Seqs)
	}
	if len(w.Leave.Types) > 0 {
		add(` AND type <> ALL ($%d::text[])`, w.Leave.Types)
	}
	if w.Leave.AllBut != "" {
		add(` AND type = $%d::text`, w.Leave.AllBut)
	}
	return cond, args
}

// picked selects columns of the rows q that where says, and locks them: ranges and what comes after in one snapshot, and only as
// many rows as the limit allows. Rows that others hold are passed over. Its first parameters are After and Limit; more are those
// of the statement that it is part of, from $3 on. It returns all of them. Relies on the queue's primary key.
func (s base) picked(queue, columns string, where Where, more ...any) (sql string, args []any) {
	cond, args := where.cond(append([]any{where.After, where.Limit}, more...))
	if len(where.From) == 0 {
		return fmt.Sprintf(`SELECT %s FROM %s q WHERE q.seq > $1%s ORDER BY q.seq LIMIT $2 FOR UPDATE SKIP LOCKED`, columns, s.ready(queue), cond), args
	}
	args = append(args, where.From, where.To)
	return fmt.Sprintf(`
			SELECT g.* FROM unnest($%[4]d::bigint[], $%[5]d::bigint[]) r (low, high), LATERAL (
				SELECT %[1]s FROM %[2]s q WHERE q.seq >= r.low AND q.seq <= r.high%[3]s ORDER BY q.seq LIMIT $2 FOR UPDATE SKIP LOCKED
			) g
			UNION ALL
			SELECT a.* FROM (
				SELECT %[1]s FROM %[2]s q WHERE q.seq > $1%[3]s ORDER BY q.seq LIMIT $2 FOR UPDATE SKIP LOCKED
			) a
			LIMIT $2`, columns, s.ready(queue), cond, len(args)-1, len(args)), args
}

// Fetch locks the ready messages that where says, in order, and appends them to into. Rows that others hold are passed over.
// The locks last to the end of the transaction. Headers and bodies above inline bytes are locked but left behind. Relies on the
// queue's primary key.
func (s Ready) Fetch(b *pgx.Batch, queue string, where Where, inline int, into *[]Message) {
	var sql string
	var args []any
	if len(where.From) > 0 {
		sql, args = s.picked(queue, `q.ctid, q.*`, where, inline)
		sql = fmt.Sprintf(`
		SELECT m.ctid, `+fetched+fetchedBody+` FROM (%s) m`, sql)
	} else {
		sql, args = where.cond([]any{where.After, where.Limit, inline})
		sql = fmt.Sprintf(`
		SELECT m.ctid, `+fetched+fetchedBody+`
		FROM %s m WHERE seq > $1%s ORDER BY m.seq LIMIT $2
		FOR UPDATE SKIP LOCKED`, s.ready(queue), sql)
	}
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var m Message
		return scanMessages(rows, &m, into, &m.Row)
	})
}

// Bounds say what a fetch may bring that commits at once, in bytes.
type Bounds struct {
	Inline int // headers and bodies above it are left behind, where they can be read later
	Total  int // bodies together; one may be larger by itself
	Body   int // a body above it is never brought, nor headers above MaxHeaders
}

// sized are the columns by which fewer chooses: with $4 as the largest body that is ever brought.
const sized = `q.seq, octet_length(q.body) AS size, octet_length(q.body) > $4 OR octet_length(q.type) > 1000
	OR (pg_column_size(q.headers) > 300 AND octet_length(q.headers::text) > 524288) IS TRUE AS large`

// fewer are CTEs over picked: few are the rows whose bodies are not above $5 bytes together, at least one; what is never
// brought counts for nothing.
const fewer = `sums AS (
			SELECT seq, size, large, sum(CASE WHEN large THEN 0 ELSE size END) OVER (ORDER BY seq) AS total FROM picked
		), few AS (
			SELECT seq, large FROM sums WHERE large OR total <= greatest($5::bigint, size)
		)`

// stay are rows for scanMessages that say which of picked were left in their queue.
const stay = `0, p.seq, '00000000-0000-0000-0000-000000000000'::uuid, 'epoch'::timestamptz, NULL, '', NULL, p.size, NULL, true
		FROM picked p`

// scanMessages appends rows to into, each by way of m, of which key is the field for the first column and more are those for
// what comes after the body. The targets are made once, and what many messages can share they share: this is where a receiver
// would spend most of its memory.
func scanMessages(rows pgx.Rows, m *Message, into *[]Message, key any, more ...any) error {
	defer rows.Close()
	var left *int64
	var body chunked
	targets := append([]any{key, &m.Attempt, &m.Seq, &m.ID, (*stamp)(&m.SentAt), &left, (*repeated)(&m.Type), &m.Headers, &m.Size, &body}, more...)
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

// Unread says whether headers were left behind: in their place is what no JSON is.
func (m *Message) Unread() bool { return len(m.Headers) == 1 && m.Headers[0] == '-' }

// LastGiven returns the highest seq that was given out in a queue, also to transactions that have not committed; 0 in a fresh
// one. Locks nothing.
func (s Ready) LastGiven(ctx context.Context, db DBTX, queue string) (last int64, err error) {
	err = db.QueryRow(ctx, `SELECT `+s.arrived(queue)).Scan(&last)
	return last, err
}

// Any says whether there are messages after a seq and not after upTo, held ones included. Locks nothing. Relies on the
// queue's primary key.
func (s Ready) Any(ctx context.Context, db DBTX, queue string, after, upTo int64) (any bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE seq > $1 AND seq <= $2)`, s.ready(queue)), after, upTo).Scan(&any)
	return any, err
}

// Relock locks those of the given messages that are still in the queue and free, and returns their seqs. For messages
// whose transaction was lost. Relies on the queue's primary key.
func (s Ready) Relock(ctx context.Context, db DBTX, queue string, seqs []int64) ([]int64, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT seq FROM %s WHERE seq = ANY ($1::bigint[]) ORDER BY seq FOR UPDATE SKIP LOCKED`, s.ready(queue)), seqs)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// Complete removes handled messages by where their rows lie, which spares the server the way through the index. Only
// for rows that this transaction has locked itself, since its Fetch: nobody can have moved them since.
func (s Ready) Complete(b *pgx.Batch, queue string, rows []pgtype.TID) {
	b.Queue(fmt.Sprintf(`DELETE FROM %s WHERE ctid = ANY ($1::tid[])`, s.ready(queue)), pgtype.FlatArray[pgtype.TID](rows))
}
