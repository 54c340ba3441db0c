package wakeup

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// lookAgainMin and lookAgainMax limit the pauses between checks of transactions that were writing when the endpoint
// fell asleep.
const lookAgainMin, lookAgainMax = 2 * time.Millisecond, 50 * time.Millisecond

// look wakes endpoints for which a noted transaction has ended, and returns when to check again; 0: there is nothing to check.
func (l *Listener) look(ctx context.Context, c *session.Conn, last time.Duration) (time.Duration, error) {
	bells := l.which(func(p *post) bool { return len(p.noted) > 0 })
	if len(bells) == 0 {
		return 0, nil
	}
	var writers []store.Writer
	b := &pgx.Batch{}
	l.Store.Tables.Writers(b, l.tablesOf(bells), &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return 0, fmt.Errorf("look for writing transactions: %w", err)
	}
	l.hold(bells, func(p *post) {
		live := store.TransactionsOn(writers, l.tables[p.bell])
		for tx := range p.noted {
			if !live[tx] {
				delete(p.noted, tx)
				p.bell.Ring(Called)
			}
		}
	})
	return min(max(2*last, lookAgainMin), lookAgainMax), nil
}
