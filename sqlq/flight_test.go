package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
)

// Sends that share a transaction each get their own result: one to a queue that does not exist is nobody else's fault.
func TestSendsAtTheSameTimeGetTheirOwnResults(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	const senders, each = 32, 30
	var group sync.WaitGroup
	for s := range senders {
		group.Go(func() {
			for i := range each {
				n := s*each + i
				var err error
				switch n % 5 {
				case 0:
					err = c.Send(t.Context(), chore{N: n}, sqlq.To("nowhere"))
					if !errors.Is(err, sqlq.ErrNoQueue) || !strings.Contains(err.Error(), `"nowhere"`) {
						t.Errorf("send to a missing queue: %v", err)
					}
					continue
				case 1:
					err = c.Send(t.Context(), entry{N: n})
				case 2:
					err = c.Send(t.Context(), chore{N: n}, sqlq.Delay(1e12))
				default:
					err = c.Send(t.Context(), chore{N: n})
				}
				if err != nil {
					t.Errorf("message %d: %v", n, err)
				}
			}
		})
	}
	group.Wait()
	const a, b, d = `SELECT count(DISTINCT convert_from(body, 'UTF8')::json->>'N') FROM sqlq.q_house`, `SELECT count(*) FROM sqlq.q_ledger`, `SELECT count(*) FROM sqlq.delayed`
	if got := fmt.Sprint(count(t, pool, a), count(t, pool, b), count(t, pool, d)); got != fmt.Sprint(senders*each*2/5, senders*each/5, senders*each/5) {
		t.Errorf("stored %s", got)
	}
	if got, want := count(t, pool, `SELECT count(*) FROM sqlq.q_house`), senders*each*2/5; got != want {
		t.Errorf("%d messages in the queue, want %d: some were stored twice", got, want)
	}
}

// A sender whose context ends while it waits for a place has sent nothing.
func TestSendWithAnEndedContext(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Send(ctx, chore{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if got := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); got != 0 {
		t.Errorf("%d messages were sent", got)
	}
}
