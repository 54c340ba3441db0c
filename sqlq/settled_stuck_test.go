package sqlq

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A call that does not return is waited for until its time is up. Then the endpoint goes on without it; what has been waiting is told
// when it returns, and the log says how many others were not.
func TestSettledThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var l life
		var kicks atomic.Int32
		var calls int
		var late error
		goOn := make(chan struct{})
		over, end := context.WithCancel(t.Context())
		o := &outcomes{endpoint: "house", messages: newMessageLog(slog.New(slog.NewTextHandler(&log, nil))), life: &l, ctx: func() context.Context { return over }, kick: func() { kicks.Add(1) },
			tell: func(ctx context.Context, s Settled) {
				if calls++; calls == 1 {
					<-goOn
					late = ctx.Err()
				}
			}}
		o.put(make([]told, 500))
		synctest.Wait()
		if o.isBehind(time.Now()) {
			t.Error("it is behind with 499 to tell")
		}
		o.put(make([]told, 501))
		if !o.isBehind(time.Now()) {
			t.Error("it is not behind with 1,000 to tell")
		}
		o.put(make([]told, 10)) // what was in hand
		kicks.Store(0)
		time.Sleep(tellWithin + time.Second)
		synctest.Wait()
		if n := kicks.Load(); o.isBehind(time.Now()) || n != 1 {
			t.Errorf("it waits for a call that does not return, or nobody was told to go on (%d)", n)
		}
		o.put(make([]told, 30))
		close(goOn)
		synctest.Wait()
		if calls != 1_011 || late == nil || !strings.Contains(log.String(), "outcomes=30") {
			t.Errorf("%d calls, the first one's context: %v, the log: %s", calls, late, &log)
		}
		o.put(make([]told, 2))
		synctest.Wait()
		if calls != 1_013 || !l.end(time.Second) {
			t.Errorf("%d calls, or something is still there", calls)
		}

		// At the end what is left is not told.
		log.Reset()
		stuck := make(chan struct{})
		o.tell = func(context.Context, Settled) { <-stuck }
		o.put(make([]told, 5))
		synctest.Wait()
		end()
		close(stuck)
		synctest.Wait()
		if !strings.Contains(log.String(), "outcomes=4") {
			t.Errorf("the log: %s", &log)
		}
	})
}

// Without the func nothing is noted of a delivery, and nobody waits.
func TestNoSettledCostsNothing(t *testing.T) {
	in := &instance{}
	in.outcomes = newOutcomes(in)
	s, d := &settlement{in: in}, &delivery{}
	if n := testing.AllocsPerRun(100, func() {
		in.outcomes.gone(d)
		in.outcomes.put(s.told)
		if in.outcomes != nil || in.outcomes.isBehind(time.Time{}) {
			t.Error("there is one")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
