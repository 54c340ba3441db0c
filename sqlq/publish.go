package sqlq

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Publish publishes an event: a copy goes into every queue that is subscribed to its type at this moment, in one
// transaction. An event without subscribers is stored nowhere, and that is no error. A subscription that was committed
// before the call gets its copy. Errors: ErrNotEvent, ErrInHandler, those of the options, and the database's.
func (c *Client) Publish(ctx context.Context, m Message, options ...SendOption) error {
	if err := c.usable(ctx, options); err != nil {
		return err
	}
	return c.prepare(ctx, m, true, nil, options, func(e envelope) error { return c.publishNow(ctx, e) })
}

// PublishTx publishes an event as part of the caller's transaction; see Publish and SendTx.
func (c *Client) PublishTx(ctx context.Context, tx DBTX, m Message, options ...SendOption) error {
	if c.closed.Load() {
		return ErrClosed
	}
	return c.prepare(ctx, m, true, nil, options, func(e envelope) error {
		var err error
		if e.Deferred() {
			_, err = c.store.PublishDelayed(ctx, tx, e.Outgoing, !c.config.NoNotify)
		} else {
			err = c.store.PublishOne(ctx, tx, e.Outgoing, !c.config.NoNotify)
		}
		return c.sendError(e, err)
	})
}

func (c *Client) publishNow(ctx context.Context, e envelope) error {
	var channels []string
	var err error
	if e.Deferred() {
		var channel string
		channel, err = c.store.PublishDelayed(ctx, c.pool, e.Outgoing, false)
		channels = append(channels, channel)
	} else {
		batch := &pgx.Batch{}
		c.queueOutgoing(batch, []envelope{e}, func(channel string) { channels = append(channels, channel) })
		err = c.pool.SendBatch(ctx, batch).Close() // one statement: its own transaction
	}
	if err != nil {
		return c.sendError(e, err)
	}
	c.wake(ctx, channels...)
	return nil
}
