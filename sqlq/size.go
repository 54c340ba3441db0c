package sqlq

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// A message may be larger than the memory of whoever receives it: a database takes 300 MB of JSON, and needs 3 MB to store them.
// So sizes are looked at before anything is read, and what exceeds the limits goes to the error table inside the server.

// readRest reads the headers and bodies that were too large to come with the fetch, up to so many bytes together; what is left then is
// left to the next fetch. Those that exceed the limits, and those under suspicion, are not read. After an error it returns all messages.
func (l *link) readRest(ctx context.Context, w *work, ms []store.Message, most int) (read []store.Message, tooLarge map[int64]error, err error) {
	total, whole := 0, true
	for i := range ms {
		if ms[i].Body != nil {
			total += ms[i].Size
		}
		whole = whole && ms[i].Body != nil && !ms[i].Unread()
	}
	if whole {
		return ms, nil, nil
	}
	read = ms[:0]
	for i := range ms {
		m := &ms[i]
		keep := true
		if (m.Body == nil || m.Unread()) && !isSuspect(m) {
			err := l.exceeds(ctx, w, m)
			switch {
			case errors.Is(err, pgx.ErrNoRows): // the lease has gone to somebody else
				keep = false
			case errors.Is(err, ErrBodyTooLarge) || errors.Is(err, ErrHeadersTooLarge):
				if tooLarge == nil {
					tooLarge = map[int64]error{}
				}
				if tooLarge[m.Seq] = err; m.Unread() {
					m.Headers = nil
				}
			case err != nil:
				return append(read, ms[i:]...), nil, err
			default:
				if total += m.Size; total > most && total > m.Size {
					keep, total = false, total-m.Size
				} else if err := l.readMessage(ctx, w, m); err != nil {
					return append(read, ms[i:]...), nil, err
				}
			}
		}
		if keep {
			read = append(read, *m)
		}
	}
	clear(ms[len(read):])
	return read, tooLarge, nil
}

// exceeds returns an error for a message that must not be read. Of headers that were left behind the size is not known yet.
func (l *link) exceeds(ctx context.Context, w *work, m *store.Message) error {
	sizes := store.Sizes{Body: m.Size}
	if m.Unread() {
		var err error
		if sizes, err = l.run.client.store.InHand.Sizes(ctx, l.conn, w.custody.source(w), w.custody.row(m)); err != nil {
			return err
		}
	}
	return l.run.client.tooLarge(sizes)
}

// tooLarge says which limit of what is received a message of such sizes exceeds.
func (c *Client) tooLarge(s store.Sizes) error {
	switch {
	case s.Body > c.config.MaxBody:
		return fmt.Errorf("%w to be received: it has %d bytes, Config.MaxBody is %d here: raise it, then replay the message", ErrBodyTooLarge, s.Body, c.config.MaxBody)
	case s.Headers > store.MaxHeaders:
		return fmt.Errorf("%w to be received: they are %d bytes of JSON, the limit is %d: put what is in them into the body", ErrHeadersTooLarge, s.Headers, store.MaxHeaders)
	}
	return nil
}

func (l *link) readMessage(ctx context.Context, w *work, m *store.Message) (err error) {
	m.Headers, m.Body, err = l.run.client.store.InHand.Rest(ctx, l.conn, w.custody.source(w), w.custody.row(m))
	return err
}

// isSuspect says whether a process may have died of a message. Its body is read when the attempt has been counted: it may be
// the reading that the process dies of.
func isSuspect(m *store.Message) bool {
	return bytes.Contains(m.Headers, []byte(`"`+headerCrashes+`":`))
}

// readBody reads the body of a message that was under suspicion when it was leased.
func (a *apart) readBody(ctx context.Context, db store.DBTX, d *delivery) (err error) {
	if d.stored.body == nil {
		_, d.stored.body, err = a.client.store.InHand.Rest(ctx, db, d.custody.from(d.batch.in, d), d.lease)
		d.Body = d.stored.body
	}
	return err
}

// withoutStaying takes those out that a fetch has left in the queue.
func withoutStaying(ms []store.Message) (taken, stay []store.Message) {
	for i := range ms {
		if ms[i].Stays {
			return ms[:i], ms[i:] // they come last
		}
	}
	return ms, nil
}

// failTooLarge moves those of the messages that an endpoint which is AtMostOnce has left in its queue to the error table that
// exceed the limits, each in a transaction of its own. The others wait for the next fetch. What the server refuses to move is
// left alone for a while.
func (l *link) failTooLarge(in *instance, stay []store.Message) {
	for i := range stay {
		d := &delivery{custody: heldCustody{}, seq: stay[i].Seq} // of a long type there is no handler
		err := l.failOneTooLarge(in, d)
		switch {
		case err == nil:
		case session.Lost(err):
			return // the next statement shows it
		default:
			l.rollback()
			in.setAside(d.seq, in.refusedAgain(d, err))
		}
	}
}

func (l *link) failOneTooLarge(in *instance, d *delivery) error {
	ctx, cancel := l.timeout()
	defer cancel()
	st, from := l.run.client.store, d.custody.from(in, d)
	if err := l.conn.BeginReceive(ctx); err != nil {
		return err
	}
	free, err := st.Ready.Relock(ctx, l.conn, in.endpoint.Name, []int64{d.seq})
	if err != nil || len(free) == 0 {
		return errors.Join(err, l.exec(ctx, `ROLLBACK`))
	}
	sizes, err := st.InHand.Sizes(ctx, l.conn, from, d.seq)
	if err != nil {
		return err
	}
	reason := l.run.client.tooLarge(sizes)
	if reason == nil && !sizes.LongType {
		return l.exec(ctx, `ROLLBACK`) // it waits for its turn
	}
	d.broken = reason
	d.stored.id, d.stored.messageType, d.Endpoint = ID(sizes.ID), sizes.Type, in.endpoint.Name
	in.handlers.decided(d)
	s := newSettlement(in, d.custody, from)
	s.add(d)
	return l.commit(ctx, in, s)
}
