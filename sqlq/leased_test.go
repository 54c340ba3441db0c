package sqlq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// A message whose attempts follow one another at once is leased while its handler counts on. Run with -race.
func TestLeaseDuringImmediateRetries(t *testing.T) {
	t.Parallel()
	const messages, retries = 100, 100
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{HoldLimit: time.Millisecond})
	run(t, c, sqlq.Endpoint{
		Name:        "flaky",
		Concurrency: 8,
		Retry:       sqlq.RetryPolicy{Immediate: retries, Delays: []time.Duration{}},
		Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[flaky]) error {
			if d.Attempt <= retries {
				return errors.New("not yet")
			}
			return nil
		})},
	})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
	all := make([]sqlq.Message, messages)
	for i := range all {
		all[i] = flaky{}
	}
	if err := c.SendMany(t.Context(), all, sqlq.To("flaky")); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_flaky) + (SELECT count(*) FROM sqlq.leased)`)
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.error`)
}
