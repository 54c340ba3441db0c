package sqlq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Row security that is switched on for a queue's table makes every look find nothing, without an error, unless the role owns
// the table. So it is asked for, when an endpoint starts and with each heartbeat.

// checkHidden refuses a queue of which this role would never see a message.
func (c *Client) checkHidden(ctx context.Context, queue string) error {
	var hidden []store.Hidden
	b := &pgx.Batch{}
	c.store.Queues.Hidden(b, []string{queue}, &hidden)
	if err := c.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("look for row security: %w", err)
	}
	if len(hidden) > 0 && !hidden[0].Policies {
		return fmt.Errorf("%w: let the owner of the table run: %s", ErrHidden, c.unhide(queue))
	}
	return nil
}

// unhide is the statement that switches row security off for a queue.
func (c *Client) unhide(queue string) string {
	return fmt.Sprintf("ALTER TABLE %s DISABLE ROW LEVEL SECURITY", pgx.Identifier{c.config.Schema, "q_" + queue}.Sanitize())
}

// learnHidden says once of each queue that its messages are hidden, or, where there are policies, that they may be.
func (r *runner) learnHidden(hidden []store.Hidden) {
	now := map[string]bool{}
	for _, h := range hidden {
		now[h.Queue] = true
		if r.hidden[h.Queue] {
			continue
		}
		if h.Policies {
			r.client.log.Warn("sqlq: row security is on for this queue; messages that its policies do not let this role select, update and delete are never received", "endpoint", h.Queue)
		} else {
			r.client.log.Error("sqlq: row security hides all messages of this queue from this role; nothing is received", "endpoint", h.Queue, "fix", r.client.unhide(h.Queue))
		}
	}
	r.hidden = now
}
