package sqlq

import (
	"context"
	"fmt"

	"github.com/sqlq/sqlq/sqlq/internal/sending"
)

// Publish publishes an event: every queue that is subscribed to its type at this moment gets a copy, in one
// transaction. An event without subscribers is not stored anywhere, which is not an error. A subscription that was committed
// before the call gets a copy. Errors: ErrNotEvent, ErrInHandler, those of the options, and those of the database.
func (c *Client) Publish(ctx context.Context, m Message, options ...SendOption) error {
	if err := c.usable(ctx, about("publish", m), options); err != nil {
		return err
	}
	return c.enclose(ctx, m, true, nil, options, func(ctx context.Context, e sending.Envelope) error {
		return c.config.observing.sent(ctx, &e, 1, nil, c.sendError(c.sender.Send(ctx, e), e))
	})
}

// PublishTx publishes an event as part of the caller's transaction; see Publish and SendTx. In a REPEATABLE READ or
// SERIALIZABLE transaction its snapshot decides which subscriptions there are.
func (c *Client) PublishTx(ctx context.Context, tx DBTX, m Message, options ...SendOption) error {
	if c.closedTo(ctx) {
		return fmt.Errorf("%s: %w", about("publish", m), ErrClosed)
	}
	if err := checkTransaction(tx); err != nil {
		return fmt.Errorf("%s: %w", about("publish", m), err)
	}
	return c.enclose(ctx, m, true, nil, options, func(ctx context.Context, e sending.Envelope) error {
		var copies int
		var err error
		if e.Deferred() {
			copies, err = c.store.Delayed.Defer(ctx, tx, e.Queue, e.Outgoing, !c.config.NoNotify)
		} else {
			copies, err = c.store.Sending.PublishOne(ctx, tx, e.Outgoing, !c.config.NoNotify)
		}
		if e.Copies != nil {
			*e.Copies = copies
		}
		return c.config.observing.sent(ctx, &e, 1, nil, c.sendError(err, e))
	})
}
