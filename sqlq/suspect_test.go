package sqlq_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// After a crash of a process of the endpoint only what that one may have had in hand is received by lease: what lay in the
// queue when the death became known, and what bears the mark. What is sent afterwards costs what it always costs.
func TestSuspicionEndsWithWhatWasInHand(t *testing.T) {
	t.Parallel()
	for _, inTx := range []bool{false, true} {
		t.Run(fmt.Sprint("in a transaction ", inTx), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			client := open(t, pool, sqlq.Config{HoldLimit: 5 * time.Second, Routes: map[string]string{"post.Letter": "post"}})
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			crashLately(t, pool, "post")
			const before, after = 30, 200
			execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}') FROM generate_series(1, $1::int)`, before)
			var handled atomic.Int32
			handler := sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { handled.Add(1); return nil })
			if inTx {
				handler = sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error { handled.Add(1); return nil })
			}
			run(t, client, sqlq.Endpoint{Name: "post", Concurrency: 4, Handlers: []sqlq.Handler{handler}})
			eventually(t, "what lay there", func() (bool, string) { return handled.Load() == before, fmt.Sprint(handled.Load()) })
			const leases = `SELECT last_value FROM sqlq.leased_lease_seq`
			if n := count(t, pool, leases); n != before {
				t.Errorf("%d leases, want one for each of the %d messages that lay there", n, before)
			}
			for range after {
				if err := client.Send(t.Context(), letter{}); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "what came later", func() (bool, string) { return handled.Load() == before+after, fmt.Sprint(handled.Load()) })
			if n := count(t, pool, leases); n != before {
				t.Errorf("%d leases, want %d and none for what came later", n, before)
			}
			execSQL(t, pool, `INSERT INTO sqlq.q_post (id, sent_at, type, headers, body) VALUES (sqlq.uuid_v7(), now() - interval '1 s', 'post.Letter', '{"sqlq-crashes":"0"}', '{}')`)
			if err := client.Send(t.Context(), letter{}); err != nil { // and wakes
				t.Fatal(err)
			}
			eventually(t, "the marked one and one more", func() (bool, string) { return handled.Load() == before+after+2, fmt.Sprint(handled.Load()) })
			if n := count(t, pool, leases); n != before+1 && n != before+2 {
				t.Errorf("%d leases, want %d and one for the marked message", n, before)
			}
		})
	}
}
