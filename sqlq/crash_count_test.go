package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// Where attempts are not counted, a message that may have killed a process fails for that only after as many deaths: failures of the
// ordinary kind, and being given back, are none, although its attempts are counted before they begin.
func TestOrdinaryFailuresAreNoCrashes(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	for n, crashes := range []string{"1", "2"} {
		execSQL(t, pool, `INSERT INTO sqlq.q_house (id, attempt, type, headers, body) VALUES (sqlq.uuid_v7(), 1, 'house.Chore', json_build_object('sqlq-crashes', $1::text), convert_to($2, 'UTF8'))`,
			crashes, fmt.Sprintf(`{"N": %d}`, n))
	}
	var calls atomic.Int32
	policy := sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Millisecond}, Unlimited: true} // 2 attempts otherwise
	run(t, open(t, pool, sqlq.Config{}), sqlq.Endpoint{Name: "house", Retry: policy, Handlers: chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
		switch n := calls.Add(1); {
		case d.Message.N != 0:
			return errors.New("it was called although it has crashed twice")
		case n%3 == 0 && n < 12:
			return sqlq.GiveBack(0, "not now")
		case n < 12:
			return errors.New("not yet")
		}
		return nil
	})})
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error WHERE message LIKE 'the process died while handling the message, 2 times%' AND convert_from(body, 'UTF8') LIKE '%1%'`)
	eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.leased)`)
	if n := count(t, pool, `SELECT count(*) FROM sqlq.error`); n != 1 || calls.Load() != 12 {
		t.Errorf("%d have failed, after %d calls", n, calls.Load())
	}
}
