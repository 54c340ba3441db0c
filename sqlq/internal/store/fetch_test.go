package store

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// house makes a queue of n small messages and returns two connections to it.
func house(t *testing.T, n int) (conn, other *pgx.Conn) {
	t.Helper()
	url := pgtest.Database(t)
	for _, c := range []**pgx.Conn{&conn, &other} {
		var err error
		if *c, err = pgx.Connect(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*c).Close(context.WithoutCancel(t.Context())) })
	}
	exec(t, conn, `SELECT sqlq.create_queue('house')`)
	exec(t, conn, fmt.Sprintf(`INSERT INTO sqlq.q_house (id, type, body) SELECT gen_random_uuid(), 'house.Chore', '{}' FROM generate_series(1, %d)`, n))
	return conn, other
}

func exec(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// fetch runs one of the fetches and returns the seqs that it took, and those that it left in the queue.
func fetch(t *testing.T, c *pgx.Conn, queue func(b *pgx.Batch, into *[]Message)) (taken, stay string, ms []Message) {
	t.Helper()
	b := &pgx.Batch{}
	queue(b, &ms)
	if err := c.SendBatch(t.Context(), b).Close(); err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Stays {
			stay += fmt.Sprint(m.Seq, " ")
		} else {
			taken += fmt.Sprint(m.Seq, " ")
		}
	}
	return taken, stay, ms
}

// A fetch takes first what has turned up in the ranges that it is given, one that committed late and one that was locked
// and is free again, then what comes after, and of all together no more than its limit; others can have the rest.
func TestFetchFromRanges(t *testing.T) {
	t.Parallel()
	s := New("sqlq")
	for name, queue := range map[string]func(where Where) func(b *pgx.Batch, into *[]Message){
		"held": func(where Where) func(*pgx.Batch, *[]Message) {
			return func(b *pgx.Batch, into *[]Message) { s.Ready.Fetch(b, "house", where, 1000, into) }
		},
		"leased": func(where Where) func(*pgx.Batch, *[]Message) {
			return func(b *pgx.Batch, into *[]Message) {
				s.Leases.Fetch(b, "house", 1, where, Bounds{Inline: 1000, Total: 1000, Body: 1000}, into)
			}
		},
		"removed": func(where Where) func(*pgx.Batch, *[]Message) {
			return func(b *pgx.Batch, into *[]Message) {
				s.Removed.Fetch(b, "house", where, Bounds{Inline: 1000, Total: 1000, Body: 1000}, into)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, late := house(t, 20)
			exec(t, conn, `DELETE FROM sqlq.q_house WHERE seq BETWEEN 1 AND 14 AND seq NOT IN (3, 6, 7)`)
			exec(t, late, `BEGIN`)
			exec(t, late, `SELECT FROM sqlq.q_house WHERE seq IN (7, 16) FOR UPDATE`)
			exec(t, conn, `BEGIN`)
			where := Where{After: 14, Limit: 5, From: []int64{2, 6}, To: []int64{4, 10}}
			if got, _, _ := fetch(t, conn, queue(where)); got != "3 6 15 17 18 " {
				t.Errorf("took %s", got)
			}
			exec(t, late, `COMMIT`)
			exec(t, late, `BEGIN`)
			if got, _, _ := fetch(t, late, queue(where)); got != "7 16 19 20 " {
				t.Errorf("another then took %s", got)
			}
			if got, _, _ := fetch(t, conn, queue(where)); got != "" && name != "held" || got != "3 6 15 17 18 " && name == "held" {
				t.Errorf("the first then took %s", got)
			}
		})
	}
}

// A fetch that commits at once brings no more bytes together than it is told, but for a single larger body; what it must never
// bring stays, or is leased unread, and so is the body of a message under suspicion.
func TestFetchIsBounded(t *testing.T) {
	t.Parallel()
	s := New("sqlq")
	bounds := Bounds{Inline: 400, Total: 1000, Body: 5000}
	conn, other := house(t, 0)
	fill := func() {
		exec(t, conn, `TRUNCATE sqlq.q_house RESTART IDENTITY`)
		exec(t, conn, `INSERT INTO sqlq.q_house (id, sent_at, type, headers, body) SELECT gen_random_uuid(), now() - interval '1 s', 'house.Chore', nullif(h, '')::json, convert_to(repeat('x', n), 'UTF8')
			FROM (VALUES (300, ''), (5001, ''), (500, ''), (100, '{"sqlq-crashes":"1"}'), (200, ''), (10, ''), (4000, ''), (10, '')) v (n, h)`)
	}
	fill()
	got, stay, ms := fetch(t, conn, func(b *pgx.Batch, into *[]Message) { s.Leases.Fetch(b, "house", 1, Where{Limit: 10}, bounds, into) })
	if got != "1 2 3 4 " || stay != "5 6 7 8 " {
		t.Errorf("leased %s, left %s", got, stay)
	}
	for i, want := range []bool{true, false, false, false} {
		if read := ms[i].Body != nil; read != want {
			t.Errorf("body %d is read: %v", ms[i].Seq, read)
		}
	}
	for range 2 {
		got, stay, _ = fetch(t, other, func(b *pgx.Batch, into *[]Message) { s.Leases.Fetch(b, "house", 1, Where{Limit: 10}, bounds, into) })
	}
	if got != "7 " || stay != "8 " {
		t.Errorf("then leased %s, left %s", got, stay)
	}

	fill()
	got, stay, _ = fetch(t, conn, func(b *pgx.Batch, into *[]Message) { s.Removed.Fetch(b, "house", Where{Limit: 10}, bounds, into) })
	if got != "1 3 4 " || stay != "2 5 6 7 8 " {
		t.Errorf("removed %s, left %s", got, stay)
	}
}
