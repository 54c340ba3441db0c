package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// letters are so many letters; some are longer than what is sent to the server at once.
func letters(n int) []sqlq.Message {
	ms := make([]sqlq.Message, n)
	for i := range ms {
		ms[i] = letter{N: i, Where: strings.Repeat("é", i%100)}
		if i%97 == 5 {
			ms[i] = letter{N: i, Where: strings.Repeat("x", 70_000)}
		}
	}
	return ms
}

// Few messages go by a statement and many by COPY, and the rows are the same, in the same order.
func TestSendManyStoresWhatSendStores(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['one', 'two', 'three']) q`)
	c := open(t, pool, sqlq.Config{})
	ms := letters(2 * sqlq.CopyFrom)
	for _, options := range [][]sqlq.SendOption{nil,
		{sqlq.WithHeader("h", `quo"te \ é 漢`+"\u2028\x01"), sqlq.WithCorrelationID("order 7")},
		{sqlq.ExpiresIn(90 * time.Minute)},
		{sqlq.ExpiresIn(90 * time.Minute), sqlq.WithHeader("a", "1")},
	} {
		execSQL(t, pool, `TRUNCATE sqlq.q_one, sqlq.q_two, sqlq.q_three`)
		for queue, size := range map[string]int{"one": 1, "two": sqlq.CopyFrom - 1, "three": len(ms)} {
			for chunk := range slices.Chunk(ms, size) {
				if err := c.SendMany(t.Context(), chunk, append(options, sqlq.To(queue))...); err != nil {
					t.Fatal(err)
				}
			}
		}
		one := storedIn(t, pool, "one")
		for _, queue := range []string{"two", "three"} {
			got := storedIn(t, pool, queue)
			if len(got) != len(one) {
				t.Fatalf("%d messages in queue %s, %d in queue one", len(got), queue, len(one))
			}
			for i := range got {
				got[i].Queue = "one"
				if got[i].String() != one[i].String() {
					t.Fatalf("message %d of queue %s is %.200v, of queue one %.200v", i, queue, got[i], one[i])
				}
			}
		}
		if n := count(t, pool, `SELECT count(DISTINCT id) FROM (SELECT id FROM sqlq.q_one UNION ALL SELECT id FROM sqlq.q_two UNION ALL SELECT id FROM sqlq.q_three) m`); n != 3*len(ms) {
			t.Errorf("%d ids of %d messages", n, 3*len(ms))
		}
		if n := count(t, pool, `SELECT count(*) FROM (SELECT convert_from(body, 'UTF8')::json->>'N' <> (row_number() OVER (ORDER BY seq) - 1)::text AS astray FROM sqlq.q_three) m WHERE astray`); n > 0 {
			t.Errorf("%d messages are out of order", n)
		}
	}
}

// Many messages to several queues, copied or not, are sent all or none, and the connection is good for more.
func TestSendManyAllOrNone(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger', 'few']) q`)
	execSQL(t, pool, `ALTER TABLE sqlq.q_ledger ADD CHECK (convert_from(body, 'UTF8') NOT LIKE '%spoilt%')`)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "house", "house.Chore": "few", "ledger.Entry": "ledger", "post.Mute": "nowhere", "post.Gone": "nowhere"}})
	send := func(last sqlq.Message) error {
		var ms []sqlq.Message
		for n := range sqlq.CopyFrom {
			ms = append(ms, letter{N: n}, entry{N: n})
		}
		return c.SendMany(t.Context(), append(ms, chore{}, last))
	}
	const all = `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.q_ledger) + (SELECT count(*) FROM sqlq.q_few)`
	for name, bad := range map[string]sqlq.Message{
		"the server refuses one": entry{Fail: "spoilt"}, "no such queue": titled{Type: "post.Gone"}, "not encodable": mute{},
	} {
		err := send(bad)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if missing := name == "no such queue"; errors.Is(err, sqlq.ErrNoQueue) != missing {
			t.Errorf("%s: %v", name, err)
		}
		if n := count(t, pool, all); n != 0 {
			t.Errorf("%s: %d messages were sent", name, n)
		}
	}
	lost := make([]sqlq.Message, sqlq.CopyFrom)
	for i := range lost {
		lost[i] = titled{Type: "post.Gone", N: i}
	}
	if err := c.SendMany(t.Context(), lost); !errors.Is(err, sqlq.ErrNoQueue) {
		t.Errorf("many to a missing queue: %v, want ErrNoQueue", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.SendMany(ctx, letters(sqlq.CopyFrom)); !errors.Is(err, context.Canceled) {
		t.Errorf("many, with an ended context: %v", err)
	}
	if n := count(t, pool, all); n != 0 {
		t.Errorf("%d messages were sent after all", n)
	}
	if err := send(entry{}); err != nil {
		t.Fatal(err)
	}
	if n := count(t, pool, all); n != 2*sqlq.CopyFrom+2 {
		t.Errorf("%d messages, want %d", n, 2*sqlq.CopyFrom+2)
	}
	if n := count(t, pool, `SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM sqlq.q_house UNION ALL SELECT xmin FROM sqlq.q_ledger UNION ALL SELECT xmin FROM sqlq.q_few) m`); n != 1 {
		t.Errorf("%d transactions, want 1", n)
	}
}

// What was copied wakes receivers that sleep.
func TestSendManyWakes(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	config := sqlq.Config{Routes: map[string]string{"post.Letter": "post"}, PollInterval: time.Hour}
	handled := make(chan int, 10*sqlq.CopyFrom)
	run(t, open(t, poolOn(t, url), config), sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error { handled <- d.Message.N; return nil }),
	}})
	c := open(t, pool, config)
	for range 3 {
		eventually(t, "receiver asleep", func() (bool, string) {
			n := 0
			if count(t, pool, `SELECT count(*) FROM pg_tables WHERE schemaname = 'sqlq' AND tablename = 'q_post'`) == 1 {
				n = asleep(t, pool, "sqlq", "post")
			}
			return n == 1, fmt.Sprint(n)
		})
		if err := c.SendMany(t.Context(), letters(sqlq.CopyFrom)); err != nil {
			t.Fatal(err)
		}
		for n := range sqlq.CopyFrom {
			select {
			case <-handled:
			case <-time.After(patience):
				t.Fatalf("%d of %d messages were handled", n, sqlq.CopyFrom)
			}
		}
	}
}
