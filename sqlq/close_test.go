package sqlq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// A Close whose context has ended before waits for no handler: all are told at once, and their messages go back with no attempt spent,
// held, leased or in the receive transaction.
func TestCloseWithAnEndedContext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		inTx bool
		hold time.Duration
	}{"Handle, held": {hold: 5 * time.Second}, "Handle, leased": {hold: 10 * time.Millisecond}, "HandleTx": {inTx: true, hold: 10 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newDrainSite(t, sqlq.Config{HoldLimit: c.hold, DrainTimeout: time.Hour})
			here := runUntil(s.here, s.endpoint("here", 2, c.inTx, true))
			s.asleep(t, 1)
			s.send(t, -2, 0)
			s.await(t, 0, 0, 2)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			began := time.Now()
			if err := s.here.Close(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("Close: %v, want the context's error", err)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("Close took %v", took)
			}
			here.wait(t, patience)
			s.mu.Lock()
			if s.ctxEnded != 2 {
				t.Errorf("the contexts of %d handlers ended, want 2", s.ctxEnded)
			}
			s.mu.Unlock()
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.q_post WHERE attempt = 0`); n != 2 {
				t.Errorf("%d messages went back unspent, want 2", n)
			}
			if n := count(t, s.pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL AND crashed_at IS NULL`); n != 1 {
				t.Errorf("%d instances have ended in order, want 1", n)
			}
			close(s.release)
			if err := s.here.Close(ctx); err != nil {
				t.Errorf("Close again: %v", err)
			}
		})
	}
}
