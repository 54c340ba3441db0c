package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Copy stores messages in one queue, in order, in the transaction of the connection, which it begins when none is open.
// Their times to live are not stored: COPY takes values, and only the database knows its time. It wakes nobody:
// Asleep says whom, later in the same transaction. Locks nothing.
func (s *Sending) Copy(ctx context.Context, conn *pgconn.PgConn, queue string, ms []Outgoing) error {
	sql := fmt.Sprintf(`COPY %s (id, type, headers, body) FROM STDIN (FORMAT binary)`, s.ready(queue))
	if conn.TxStatus() == 'I' {
		sql = `BEGIN; ` + sql
	}
	_, err := conn.CopyFrom(ctx, &copyRows{rest: ms}, sql)
	return err
}

// Asleep hands the channel to notify after the commit to then; "" when no receiver of the queue sleeps. It must
// come after the insert, in its transaction.
func (s *Sending) Asleep(b *pgx.Batch, queue string, then func(channel string)) {
	b.Queue(`SELECT ` + s.asleep(queue)).QueryRow(scanChannel(then))
}

// copyRows reads as messages in the binary format of COPY: see "Binary Format" in PostgreSQL's manual of COPY.
type copyRows struct {
	rest   []Outgoing
	buffer []byte
	unread []byte // of buffer
	state  int    // 0: the header comes next, 1: rows and the trailer, 2: nothing
}

func (c *copyRows) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		if c.state == 2 {
			return 0, io.EOF
		}
		c.fill()
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

func (c *copyRows) fill() {
	const enough = 60_000 // what pgconn reads at once
	b := c.buffer[:0]
	if c.state == 0 {
		b = append(b, "PGCOPY\n\xff\r\n\x00"...)
		b = append(b, make([]byte, 8)...) // no flags, no extension
		c.state = 1
	}
	for len(c.rest) > 0 && len(b) < enough {
		m := &c.rest[0]
		b = binary.BigEndian.AppendUint16(b, 4) // columns
		b = appendField(b, m.ID[:])
		b = appendField(b, m.Type)
		if m.Headers == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff) // null
		} else {
			b = appendField(b, m.Headers)
		}
		b = appendField(b, m.Body)
		c.rest = c.rest[1:]
	}
	if len(c.rest) == 0 && len(b) < enough {
		b = binary.BigEndian.AppendUint16(b, 0xffff) // the trailer
		c.state = 2
	}
	c.buffer, c.unread = b, b
}

func appendField[T string | []byte](b []byte, value T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(value))), value...)
}
