package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// countingConn counts what it reads.
type countingConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// A message that is larger than Config.MaxBody, or than headers may be, goes to the error table inside the server: nothing
// of it is read, however it is received, and others go on. When the limit is raised it can be replayed.
func TestTooLargeToReceive(t *testing.T) {
	t.Parallel()
	const size = 24 << 20 // more than one may be where nothing is said
	headers := `(SELECT json_object_agg('h' || i, repeat('x', 10000)) FROM generate_series(1, 100) i)`
	for _, way := range []struct {
		name     string
		endpoint sqlq.Endpoint
		suspect  bool
		tx       bool
	}{
		{name: "held"},
		{name: "held, HandleTx", tx: true},
		{name: "leased", suspect: true},
		{name: "leased, HandleTx", suspect: true, tx: true},
		{name: "at most once", endpoint: sqlq.Endpoint{AtMostOnce: true}},
		{name: "deduplicating", endpoint: sqlq.Endpoint{Deduplicate: time.Hour}},
	} {
		t.Run(way.name, func(t *testing.T) { // one after the other: the server has to hold them
			config, err := pgxpool.ParseConfig(pgtest.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			var read atomic.Int64
			dial := config.ConnConfig.DialFunc
			config.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				return countingConn{c, &read}, err
			}
			pool, err := pgxpool.NewWithConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
			if way.suspect { // another instance has crashed just now
				execSQL(t, pool, `INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time, crashed_at) VALUES ('house', 'h', 1, 'v', 1, true, interval '15 s', clock_timestamp())`)
			}
			execSQL(t, pool, `INSERT INTO sqlq.q_house (id, type, body)
				SELECT sqlq.uuid_v7(), 'house.Chore', convert_to('{"Do":"' || repeat('x', $1::int) || '"}', 'UTF8')`, size)
			execSQL(t, pool, `INSERT INTO sqlq.q_house (id, sent_at, type, headers, body) SELECT sqlq.uuid_v7(), now() - interval '1 s', 'house.Chore', `+headers+`, '{}'`)
			execSQL(t, pool, `INSERT INTO sqlq.q_house (id, type, body) SELECT sqlq.uuid_v7(), 'house.Chore', '{"N":7}'`)
			read.Store(0)
			var handled, bytes atomic.Int64
			handle := func(m chore) {
				handled.Add(1)
				bytes.Add(int64(len(m.Do)))
			}
			e := way.endpoint
			e.Name = "house"
			if e.Handlers = chores(func(_ context.Context, d *sqlq.Delivery[chore]) error {
				handle(d.Message)
				return nil
			}); way.tx {
				e.Handlers = []sqlq.Handler{sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[chore]) error {
					handle(d.Message)
					return nil
				})}
			}
			stop := run(t, open(t, pool, sqlq.Config{MaxBody: 1 << 20}), e)
			eventuallyCount(t, pool, 2, `SELECT count(*) FROM sqlq.error`)
			eventually(t, "the third is handled", func() (bool, string) { return handled.Load() == 1, fmt.Sprint(handled.Load()) })
			eventuallyCount(t, pool, 0, `SELECT (SELECT count(*) FROM sqlq.q_house) + (SELECT count(*) FROM sqlq.leased)`)
			stop()
			if n := read.Load(); n > 1<<20 {
				t.Errorf("%d bytes came from the server", n)
			}
			for _, want := range []string{
				fmt.Sprintf("%v to be received: it has %d bytes, Config.MaxBody is 1048576 here: raise it, then replay the message", sqlq.ErrBodyTooLarge, size+9),
				sqlq.ErrHeadersTooLarge.Error() + " to be received: they are % bytes of JSON, the limit is 524288",
			} {
				if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE message LIKE '%' || $1 || '%' AND attempts = 1 AND id IS NOT NULL AND type = 'house.Chore'`, want); n != 1 {
					t.Errorf("%d failed with %q", n, want)
				}
			}
			if n := count(t, pool, `SELECT count(*) FROM sqlq.error WHERE octet_length(body) = $1::int OR octet_length(headers::text) > 1000000`, size+9); n != 2 {
				t.Errorf("%d failed messages have their bodies and headers", n)
			}

			// Of those that are within the limits now everything arrives.
			stop = run(t, open(t, pool, sqlq.Config{MaxBody: size + 9}), e)
			execSQL(t, pool, `SELECT sqlq.replay(queue => 'house')`)
			eventually(t, "the large one is handled", func() (bool, string) { return bytes.Load() == size, fmt.Sprint(bytes.Load()) })
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error`)
			stop()
		})
	}
}

// Headers that are longer than what comes along with a fetch are read with the body.
func TestLongHeadersArrive(t *testing.T) {
	t.Parallel()
	for _, e := range []sqlq.Endpoint{{}, {AtMostOnce: true}} {
		pool := newPool(t)
		execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
		c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post"}})
		value := strings.Repeat("<", 60_000) // which JSON writes with six bytes
		got := make(chan error, 10)
		e.Name, e.Handlers = "post", []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[letter]) error {
			if d.Headers["x"] != value || d.Message.N != 5 {
				got <- errors.New("something else")
			}
			got <- nil
			return nil
		})}
		if err := c.Send(t.Context(), letter{N: 5}, sqlq.WithHeader("x", value)); err != nil {
			t.Fatal(err)
		}
		run(t, c, e)
		if err := <-got; err != nil {
			t.Error(err)
		}
	}
}

// Bodies of a size of which a full batch would be more than a fetch may bring are fetched once.
func TestBodiesAreFetchedOnce(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	const messages = 6000
	execSQL(t, pool, `SELECT sqlq.create_queue('bulk')`)
	execSQL(t, pool, `INSERT INTO sqlq.q_bulk (id, type, headers, body)
		SELECT sqlq.uuid_v7(), 'post.Bulk', '{"sqlq-content-type":"application/octet-stream"}', decode(repeat('00', 24 << 10), 'hex') FROM generate_series(1, $1::int)`, messages)
	c := open(t, pool, sqlq.Config{Codecs: []sqlq.Codec{blobs}, HoldLimit: 5 * time.Second})
	run(t, c, sqlq.Endpoint{Name: "bulk", Concurrency: 200, Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[*bulk]) error { return nil }),
	}})
	eventually(t, "handled", func() (bool, string) { s := statsOf(c); return s.Handled == messages, fmt.Sprintf("%+v", s) })
	if s := statsOf(c); s.Received > messages*11/10 {
		t.Errorf("%d messages were received for %d", s.Received, messages)
	}
}
