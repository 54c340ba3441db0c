package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// lookAgainMin and lookAgainMax bound the pauses between looks for transactions that were writing when the instance
// fell asleep.
const lookAgainMin, lookAgainMax = 2 * time.Millisecond, 50 * time.Millisecond

// look wakes instances for which a noted transaction has ended, and returns when to look again; 0: nothing to look for.
func (l *listener) look(ctx context.Context, c *session.Conn, last time.Duration) (time.Duration, error) {
	ins := l.which(func(p *post) bool { return len(p.noted) > 0 })
	if len(ins) == 0 {
		return 0, nil
	}
	var writers []store.Writer
	b := &pgx.Batch{}
	l.run.client.store.Writers(b, l.tablesOf(ins), &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return 0, fmt.Errorf("look for writing transactions: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range ins {
		live := transactions(writers, l.tables[in])
		for tx := range l.posts[in].noted {
			if !live[tx] {
				delete(l.posts[in].noted, tx)
				defer in.wake()
			}
		}
	}
	return min(max(2*last, lookAgainMin), lookAgainMax), nil
}

func (l *listener) tablesOf(ins []*instance) []store.TableID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var tables []store.TableID
	for _, in := range ins {
		tables = append(tables, l.tables[in])
	}
	return tables
}

func transactions(writers []store.Writer, table store.TableID) map[string]bool {
	found := map[string]bool{}
	for _, w := range writers {
		if w.Table == table {
			found[w.Transaction] = true
		}
	}
	return found
}
