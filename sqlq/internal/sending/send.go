// Package sending stores messages and wakes their receivers: one message at a time, many in a statement or by COPY, and, for
// goroutines that send at the same time, in shared transactions (group commit). Its messages are already encoded
// and checked, and it returns the database's errors as they are.
package sending

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Envelope is an encoded message and its destination.
type Envelope struct {
	store.Outgoing
	Queue  string // "": published
	Copies *int   // set to how many copies were stored; nil: nobody wants to know
}

// Sender stores messages through the program's pool. It is safe for concurrent use.
type Sender struct {
	store    *store.Schema
	pool     *pgxpool.Pool
	wakes    *Wakes
	groups   groups
	readOnly session.ReadOnly
}

// New returns a Sender that stores messages in a schema and wakes their receivers.
func New(st *store.Schema, pool *pgxpool.Pool, wakes *Wakes) *Sender {
	return &Sender{store: st, pool: pool, wakes: wakes}
}

// SendAll stores messages in one transaction and wakes their receivers. If a connection refuses because it was opened
// while the server was read-only, another one is tried.
func (s *Sender) SendAll(ctx context.Context, all []Envelope) error {
	err := s.storeOnce(ctx, all)
	if session.State(err) == session.ReadOnlySession && s.readOnly.Drop(ctx, s.pool) {
		err = s.storeOnce(ctx, all)
	}
	if err == nil {
		countCommands(all)
	}
	return err
}

// countCommands sets the number of copies of commands that are stored.
func countCommands(all []Envelope) {
	for i := range all {
		if e := &all[i]; e.Copies != nil && e.Queue != "" {
			*e.Copies = 1
		}
	}
}

func (s *Sender) storeOnce(ctx context.Context, all []Envelope) error {
	switch {
	case len(all) == 0:
		return nil
	case len(all) == 1 && all[0].Queue != "" && !all[0].Deferred():
		channel, err := s.store.Sending.Insert(ctx, s.pool, all[0].Queue, all[0].Outgoing)
		if err != nil {
			return err
		}
		s.wakes.Wake(channel)
		return nil
	}
	if queues, byQueue, rest := copied(all); len(queues) > 0 {
		channels, err := s.copyAll(ctx, queues, byQueue, rest)
		if err != nil {
			return err
		}
		s.wakes.Wake(channels...)
		return nil
	}
	if queue, ms := oneStatement(all); queue != "" {
		channel, err := s.store.Sending.InsertMany(ctx, s.pool, queue, ms)
		if err != nil {
			return err
		}
		s.wakes.Wake(channel)
		return nil
	}
	var channels []string
	batch := &pgx.Batch{}
	s.Queue(batch, all, func(channel string) { channels = append(channels, channel) })
	// A round trip outside of a transaction is a transaction.
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	s.wakes.Wake(channels...)
	return nil
}

// Limits of a statement that stores many messages: PostgreSQL accepts parameters of up to 1 GiB, and a statement's contents
// are in memory several times over.
const (
	chunkMessages = 5_000
	chunkBytes    = 16 << 20
)

// oneStatement returns the messages and their queue if one statement can store all of them, otherwise "".
func oneStatement(all []Envelope) (queue string, ms []store.Outgoing) {
	if len(all) > chunkMessages {
		return "", nil
	}
	ms = make([]store.Outgoing, len(all))
	size := 0
	for i := range all {
		e := &all[i]
		size += len(e.Body)
		if e.Queue != all[0].Queue || e.Deferred() || size > chunkBytes {
			return "", nil
		}
		ms[i] = e.Outgoing
	}
	return all[0].Queue, ms
}

// Queue adds the statements that store messages to a round trip: one for each queue and one for all events, and others for delayed
// messages. If copies are counted, events of each type have a statement of their own, because a statement counts the copies of
// all its events together. then is called with the channels to notify after the commit.
func (s *Sender) Queue(batch *pgx.Batch, all []Envelope, then func(channel string)) {
	type destination struct {
		route
		delayed bool
	}
	var order []destination // in order of appearance; the queue of events is ""
	byRoute := map[destination]*together{}
	counts := false
	for i := range all {
		counts = counts || all[i].Copies != nil
	}
	for i := range all {
		e := &all[i]
		d := destination{route{queue: e.Queue}, e.Deferred()}
		if counts {
			d.route = routeOf(e)
		}
		t := byRoute[d]
		if t == nil {
			t = &together{}
			byRoute[d] = t
			order = append(order, d)
		}
		t.messages = append(t.messages, e.Outgoing)
		if counts {
			t.copies = append(t.copies, e.Copies)
		}
	}
	for _, d := range order {
		for t := byRoute[d]; len(t.messages) > 0; {
			switch ms, stored := t.chunk(); {
			case d.delayed && len(ms) == 1:
				s.store.Delayed.QueueDefer(batch, d.queue, ms[0], then, stored)
			case d.delayed && d.queue == "":
				s.store.Delayed.QueueDeferEvents(batch, ms, then, stored)
			case d.delayed:
				s.store.Delayed.QueueDeferMany(batch, d.queue, ms, then)
			case d.queue == "":
				s.store.Sending.Publish(batch, ms, then, stored)
			default:
				s.store.Sending.QueueInsertMany(batch, d.queue, ms, then)
			}
		}
	}
}

// together are messages that go into the same statement.
type together struct {
	messages []store.Outgoing
	copies   []*int // of each message; nil: copies are not counted
}

// chunk takes out as many messages as one statement may store. stored divides the copies that it has stored among its events: each has
// as many, because all are of one type.
func (t *together) chunk() (ms []store.Outgoing, stored func(copies int)) {
	n, size := 0, 0
	for n < len(t.messages) && n < chunkMessages && (n == 0 || size+len(t.messages[n].Body) <= chunkBytes) {
		size += len(t.messages[n].Body)
		n++
	}
	ms, t.messages = t.messages[:n], t.messages[n:]
	if t.copies == nil {
		return ms, nil
	}
	counted := t.copies[:n]
	t.copies = t.copies[n:]
	return ms, func(copies int) {
		for _, c := range counted {
			if c != nil {
				*c = copies / n
			}
		}
	}
}
