package sqlq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq"
)

// parcel and crate are two types of message with a body of any size.
type parcel struct {
	N   int
	Pad string
}

func (parcel) MessageType() string { return "post.Parcel" }

type crate parcel

func (crate) MessageType() string { return "post.Crate" }

// Messages of one batch that have little in common arrive as they were sent, and stay so for a handler that keeps them.
func TestUnequalMessagesOfABatch(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	client := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Parcel": "post", "post.Crate": "post"}})
	const n = 200
	sizes := []int{0, 1, 200, 4_090, 5_000, 30_000, 40_000, 100_000}
	want := map[int]string{} // what describe says of each
	describe := func(d *sqlq.Incoming) string {
		return fmt.Sprintf("%s, headers %v, attempt %d, about %v: %s", d.Type, d.Headers, d.Attempt, d.CorrelationID == d.ID.String(), d.Body)
	}
	for i := range n {
		parcel := parcel{N: i, Pad: strings.Repeat(string(rune('a'+i%26)), sizes[i%len(sizes)])}
		var m sqlq.Message = parcel
		if i%3 == 0 {
			m = crate(parcel)
		}
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var headers sqlq.Headers
		var options []sqlq.SendOption
		if i%5 == 0 {
			headers = sqlq.Headers{"number": fmt.Sprint(i)}
			options = append(options, sqlq.WithHeader("number", fmt.Sprint(i)))
		}
		if i%7 == 0 {
			options = append(options, sqlq.ExpiresIn(time.Hour))
		}
		if err := client.Send(t.Context(), m, options...); err != nil {
			t.Fatal(err)
		}
		want[i] = fmt.Sprintf("%s, headers %v, attempt 1, about true: %s", m.MessageType(), headers, body)
	}
	execSQL(t, pool, `UPDATE sqlq.q_post SET expires_at = clock_timestamp() - interval '1 s' WHERE seq % 50 = 0`)
	var mu sync.Mutex
	kept := map[int]*sqlq.Incoming{}
	keep := func(n int, d *sqlq.Incoming) error {
		mu.Lock()
		defer mu.Unlock()
		kept[n] = d
		return nil
	}
	stop := run(t, client, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[parcel]) error { return keep(d.Message.N, d.Incoming) }),
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[crate]) error { return keep(d.Message.N, d.Incoming) }),
	}})
	eventuallyCount(t, pool, 0, `SELECT count(*) FROM sqlq.q_post`)
	stop()
	if len(kept) != n-n/50 {
		t.Errorf("%d messages were handled, %d were sent and %d have expired", len(kept), n, n/50)
	}
	for i, d := range kept {
		if got := describe(d); got != want[i] {
			t.Errorf("message %d: got %.200s, want %.200s", i, got, want[i])
		}
	}
	if failed := count(t, pool, `SELECT count(*) FROM sqlq.error`); failed > 0 {
		t.Errorf("%d messages failed", failed)
	}
}
