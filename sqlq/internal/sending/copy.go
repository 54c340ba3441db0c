package sending

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// CopyFrom is the number of messages to one queue from which COPY is worth its second round trip. With 200 bytes each it
// breaks even with unnest at about 200 to 400; with 10,000 it is half as fast again.
const CopyFrom = 300

// copied splits off the messages to queues that get so many of them that COPY is fastest.
func copied(all []Envelope) (queues []string, byQueue map[string][]store.Outgoing, rest []Envelope) {
	if len(all) < CopyFrom {
		return nil, nil, all
	}
	canCopy := func(e *Envelope) bool { return e.Queue != "" && !e.Deferred() && e.TTL == 0 }
	counts := map[string]int{}
	for i := range all {
		if e := &all[i]; canCopy(e) {
			counts[e.Queue]++
		}
	}
	byQueue = map[string][]store.Outgoing{}
	for i := range all {
		e := &all[i]
		if !canCopy(e) || counts[e.Queue] < CopyFrom {
			rest = append(rest, *e)
			continue
		}
		if byQueue[e.Queue] == nil {
			queues = append(queues, e.Queue)
			byQueue[e.Queue] = make([]store.Outgoing, 0, counts[e.Queue])
		}
		byQueue[e.Queue] = append(byQueue[e.Queue], e.Outgoing)
	}
	return queues, byQueue, rest
}

// copyAll stores the messages of some queues by COPY and the rest by statements, all in one transaction, and
// returns the channels to notify. After an error nothing is stored or, if the connection was lost, the outcome is unknown.
func (s *Sender) copyAll(ctx context.Context, queues []string, byQueue map[string][]store.Outgoing, rest []Envelope) (channels []string, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release() // if a transaction is still open, this closes the connection, which rolls it back
	defer func() {
		if err != nil && !conn.Conn().IsClosed() {
			_, _ = conn.Exec(ctx, `ROLLBACK`) // only so that the connection can be kept
		}
	}()
	for _, q := range queues {
		if err := s.store.Sending.Copy(ctx, conn.Conn().PgConn(), q, byQueue[q]); err != nil {
			return nil, err
		}
	}
	end := &pgx.Batch{}
	then := func(channel string) { channels = append(channels, channel) }
	for _, q := range queues {
		s.store.Sending.Asleep(end, q, then)
	}
	s.Queue(end, rest, then)
	end.Queue(`COMMIT`)
	if err := conn.SendBatch(ctx, end).Close(); err != nil {
		return nil, err
	}
	return channels, nil
}
