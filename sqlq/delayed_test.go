package sqlq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

type flaky struct{}

func (flaky) MessageType() string { return "test.Flaky" }

// The movers look by themselves once a second only. A retry that is due earlier is moved in time all the same, whether
// the process that moves is the one whose handler failed or another.
func TestShortDelayedRetriesComeInTime(t *testing.T) {
	t.Parallel()
	const rounds = 8
	delays := make([]time.Duration, rounds)
	for i := range delays {
		delays[i] = 10 * time.Millisecond
	}
	for _, elsewhere := range []bool{false, true} {
		name := "moved by the same process"
		if elsewhere {
			name = "moved by another process"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			if elsewhere {
				run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "other", Handlers: []sqlq.Handler{
					sqlq.Handle(func(context.Context, *sqlq.Delivery[flaky]) error { return nil }),
				}})
				eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance`)
			}
			done := make(chan time.Time, 1)
			c := open(t, pool, sqlq.Config{})
			run(t, c, sqlq.Endpoint{
				Name:  "flaky",
				Retry: sqlq.RetryPolicy{Immediate: -1, Delays: delays},
				Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[flaky]) error {
					if d.Attempt <= rounds {
						return errors.New("not yet")
					}
					done <- time.Now()
					return nil
				})},
			})
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.instance WHERE endpoint = 'flaky'`)
			began := time.Now()
			if err := c.Send(t.Context(), flaky{}, sqlq.To("flaky")); err != nil {
				t.Fatal(err)
			}
			select {
			case end := <-done:
				// A second a round without being told; far less with it, even on a busy machine.
				if took := end.Sub(began); took > rounds*time.Second/2 {
					t.Errorf("%d rounds with delays of %v took %v", rounds, delays[0], took)
				}
			case <-time.After(patience):
				t.Fatal("the message was never handled")
			}
		})
	}
}
