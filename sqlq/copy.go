package sqlq

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// copyFrom is the number of messages to one queue from which COPY is worth its second round trip. With 200 bytes each it
// breaks even with unnest at some 200 to 400; of 10,000 it stores half as many again in the same time.
const copyFrom = 300

// copied splits off the messages to queues that get so many of them that COPY is the quickest.
func copied(all []envelope) (queues []string, byQueue map[string][]store.Outgoing, rest []envelope) {
	if len(all) < copyFrom {
		return nil, nil, all
	}
	canCopy := func(e *envelope) bool { return e.queue != "" && !e.Deferred() && e.TTL == 0 }
	counts := map[string]int{}
	for i := range all {
		if e := &all[i]; canCopy(e) {
			counts[e.queue]++
		}
	}
	byQueue = map[string][]store.Outgoing{}
	for i := range all {
		e := &all[i]
		if !canCopy(e) || counts[e.queue] < copyFrom {
			rest = append(rest, *e)
			continue
		}
		if byQueue[e.queue] == nil {
			queues = append(queues, e.queue)
			byQueue[e.queue] = make([]store.Outgoing, 0, counts[e.queue])
		}
		byQueue[e.queue] = append(byQueue[e.queue], e.Outgoing)
	}
	return queues, byQueue, rest
}

// copyAll stores the messages of some queues by COPY and the rest by statements, all of them in one transaction, and
// returns the channels to notify. On an error nothing is stored, or, after a lost connection, nobody knows.
func (c *Client) copyAll(ctx context.Context, queues []string, byQueue map[string][]store.Outgoing, rest []envelope) (channels []string, err error) {
	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release() // with a transaction left open it is closed, which rolls back
	defer func() {
		if err != nil && !conn.Conn().IsClosed() {
			_, _ = conn.Exec(ctx, `ROLLBACK`) // only so that the connection can be kept
		}
	}()
	for _, q := range queues {
		if err := c.store.Copy(ctx, conn.Conn().PgConn(), q, byQueue[q]); err != nil {
			return nil, err
		}
	}
	end := &pgx.Batch{}
	then := func(channel string) { channels = append(channels, channel) }
	for _, q := range queues {
		c.store.QueueAsleep(end, q, then)
	}
	c.queueOutgoing(end, rest, then)
	end.Queue(`COMMIT`)
	if err := conn.SendBatch(ctx, end).Close(); err != nil {
		return nil, err
	}
	return channels, nil
}
