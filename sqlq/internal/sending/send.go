// Package sending stores messages and wakes those who receive them: one at a time, many in a statement or by COPY, and, from
// goroutines that send at the same time, in transactions that they share (group commit). It is given messages that are encoded
// and checked, and returns the database's errors as they are.
package sending

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Envelope is an encoded message and where it goes.
type Envelope struct {
	store.Outgoing
	Queue string // "": published
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

// SendAll stores messages in one transaction and wakes their receivers. What a connection refuses because it was opened
// while the server was read-only, another one may take.
func (s *Sender) SendAll(ctx context.Context, all []Envelope) error {
	err := s.storeOnce(ctx, all)
	if session.State(err) == session.ReadOnlySession && s.readOnly.Drop(ctx, s.pool) {
		err = s.storeOnce(ctx, all)
	}
	return err
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
	// A round trip outside of a transaction is one.
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return err
	}
	s.wakes.Wake(channels...)
	return nil
}

// Bounds of a statement that stores many messages: PostgreSQL takes parameters of up to 1 GiB, and everything in one
// would stand in memory several times over.
const (
	chunkMessages = 5_000
	chunkBytes    = 16 << 20
)

// oneStatement returns the messages and their queue where one statement can store all; else "".
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

// Queue adds the statements that store messages, one for each queue and one for all events, to a round trip.
// then gets the channels to notify after the commit.
func (s *Sender) Queue(batch *pgx.Batch, all []Envelope, then func(channel string)) {
	var queues []string // in order of appearance; "" for events
	byQueue := map[string][]store.Outgoing{}
	for _, e := range all {
		if e.Deferred() {
			s.store.Delayed.QueueDefer(batch, e.Queue, e.Outgoing, then)
			continue
		}
		if byQueue[e.Queue] == nil {
			queues = append(queues, e.Queue)
		}
		byQueue[e.Queue] = append(byQueue[e.Queue], e.Outgoing)
	}
	for _, q := range queues {
		for ms := byQueue[q]; len(ms) > 0; {
			n, size := 0, 0
			for n < len(ms) && n < chunkMessages && (n == 0 || size+len(ms[n].Body) <= chunkBytes) {
				size += len(ms[n].Body)
				n++
			}
			if q == "" {
				s.store.Sending.Publish(batch, ms[:n], then)
			} else {
				s.store.Sending.QueueInsertMany(batch, q, ms[:n], then)
			}
			ms = ms[n:]
		}
	}
}
