package query

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
)

// The batches of operators have no more bytes than they may beyond their first message, and say where they stopped.
func TestBatchesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	// 102,400 random bytes, or they would be compressed.
	const large = `(SELECT string_agg(sha256(i::text::bytea || n::text::bytea), '') FROM generate_series(1, 3200) i)`
	for _, sql := range []string{
		`SELECT sqlq.create_queue(q) FROM unnest(ARRAY['from', 'to']) q`,
		`INSERT INTO sqlq.q_from (id, type, body) SELECT gen_random_uuid(), 'T', ` + large + ` FROM generate_series(1, 6) n`,
		`INSERT INTO sqlq.delayed (due_at, id, why, queue, type, headers, body) SELECT now() + interval '1 hour', gen_random_uuid(), 'delay', CASE WHEN n > 5 THEN 'to' ELSE 'from' END, 'T',
			json_build_object('h', encode(` + large + `, 'hex')), '1' FROM generate_series(1, 8) n`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	s, ctx := New("sqlq"), t.Context()
	span := Span{UpTo: 100, Look: 100, Want: 100, Bytes: 150_000}
	is := func(what, got, want string, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", what, got, err, want)
		}
	}
	taken, err := s.PurgeReady(ctx, conn, "from", Filter{}, span)
	is("purge", fmt.Sprint(taken), "{2 6 2 true}", err)
	span.After, span.Bytes = taken.Last, 1
	taken, _, err = s.MoveReady(ctx, conn, "from", "to", Filter{}, span)
	is("move", fmt.Sprint(taken), "{1 4 3 true}", err)
	span.After, span.Bytes = taken.Last, 16<<20
	taken, _, err = s.MoveReady(ctx, conn, "from", "to", Filter{}, span)
	is("move of the rest", fmt.Sprint(taken), "{3 3 6 false}", err)

	n, next, err := s.PurgeDelayed(ctx, conn, "from", Filter{}, DelayedKey{}, 100, 100, 150_000)
	is("purge of delayed", fmt.Sprint(n, next.Seq), "1 1", err)
	n, next, err = s.PurgeDelayed(ctx, conn, "from", Filter{}, *next, 100, 2, 16<<20)
	is("purge of two delayed", fmt.Sprint(n, next.Seq), "2 3", err)
	for _, newest := range []bool{false, true} {
		st := DelayedStretch{Newest: newest}
		c, err := s.CancelDelayed(ctx, conn, st, Filter{Queue: "to"}, 1, 100, 1) // the first ones are another's
		if err != nil {
			t.Fatal(err)
		}
		for c.Next != nil {
			st.From = c.Next
			was := c.N
			if c, err = s.CancelDelayed(ctx, conn, st, Filter{Queue: "to"}, 1, 100, 1); err != nil {
				t.Fatal(err)
			}
			c.N += was
		}
		if want := map[bool]int64{false: 3}[newest]; c.N != want {
			t.Errorf("cancelled %d, want %d (newest first: %v)", c.N, want, newest)
		}
	}
	c, err := s.RescheduleDelayed(ctx, conn, DelayedStretch{}, Filter{}, Due{By: time.Hour}, 1, 100)
	is("reschedule", fmt.Sprint(c.N, c.Next), "2 <nil>", err)

	if _, err := conn.Exec(ctx, `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, failed_at, error_type, message, fingerprint)
		SELECT gen_random_uuid(), 'from', 'from', 'h', 'T', `+large+`, 1, now(), now(), now(), 'e', 'm', 'f' FROM generate_series(1, 4) n`); err != nil {
		t.Fatal(err)
	}
	last, end, err := s.LookAhead(ctx, conn, Filter{Status: "failed"}, nil, math.MaxInt64, 100, 150_000)
	is("look ahead", fmt.Sprint(last.Seq, end), "2 false", err)
}
