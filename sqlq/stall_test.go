package sqlq_test

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// stalls are connections of which those for one purpose can be cut, so that what they send is lost and nobody is told.
type stalls struct {
	name    string // their application_name
	cut     atomic.Bool
	swallow chan struct{} // filled when something was lost
}

type stalling struct {
	net.Conn
	all *stalls
	is  bool // for the purpose
	cut bool
}

func (s *stalls) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &stalling{Conn: conn, all: s}, nil
}

// Write implements net.Conn. One goroutine writes at a time.
func (c *stalling) Write(b []byte) (int, error) {
	c.is = c.is || bytes.Contains(b, []byte(c.all.name+"\x00"))
	c.cut = c.cut || c.is && c.all.cut.Swap(false)
	if !c.cut {
		return c.Conn.Write(b)
	}
	select {
	case c.all.swallow <- struct{}{}:
	default:
	}
	return len(b), nil
}

// A statement of the listener that gets no answer holds up nobody: its instances poll, and in the end it has another session.
func TestListenerWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &stalls{name: "sqlq listen", swallow: make(chan struct{}, 1)}
	config.ConnConfig.DialFunc = s.dial
	config.ConnConfig.TLSConfig = nil // which would hide what is written
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	p := runPost(t, pool, sqlq.Config{PollInterval: 300 * time.Millisecond}, "post")
	eventually(t, "it sleeps", func() (bool, string) { return asleep(t, pool, "sqlq", "post") == 1, "" })
	listener := count(t, pool, `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sqlq listen'`)
	s.cut.Store(true)
	select {
	case <-s.swallow:
	case <-time.After(patience):
		t.Fatal("the listener asks nothing")
	}
	sender := open(t, pool, sqlq.Config{})
	for range 3 {
		p.soon(t, 2*pollsWithin, func() error { return sender.Send(t.Context(), letter{}, sqlq.To("post")) })
	}
	eventually(t, "it listens again", func() (bool, string) {
		return p.Stats().Listening && count(t, pool, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sqlq listen' AND pid <> $1`, listener) == 1, ""
	})
	eventually(t, "senders wake it again", func() (bool, string) { return statsOf(p.Client).Waits == sqlq.Notified, "" })
}

// A listening connection that is made anew does not need the program's pool either.
func TestListeningAnewDoesNotNeedThePool(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue('first')`)
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 2
	busy, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(busy.Close)
	run(t, open(t, busy, sqlq.Config{PollInterval: time.Hour}), sqlq.Endpoint{Name: "first", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[voucher]) error { return nil }),
	}})
	sleeps := func() (bool, string) { return asleep(t, admin, "sqlq", "first") == 1, "" }
	eventually(t, "it sleeps", sleeps)
	for range 2 {
		held, err := busy.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer held.Release()
	}
	if n := count(t, admin, `SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
		WHERE application_name = 'sqlq listen' AND datname = current_database()`); n != 1 {
		t.Fatalf("%d connections listened", n)
	}
	eventually(t, "it sleeps again", sleeps)
}

// With the program's own pool busy nobody waits for a wake-up: neither the receivers of the process nor those of another, which
// it wakes. Nor does the end.
func TestWakesDoNotNeedThePool(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue('first'), sqlq.create_queue('post')`)
	p := runPost(t, admin, sqlq.Config{PollInterval: time.Hour}, "post")
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 2
	busy, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(busy.Close)
	c := open(t, busy, sqlq.Config{PollInterval: time.Hour})
	stop := run(t, c, sqlq.Endpoint{Name: "first", Handlers: []sqlq.Handler{
		sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[voucher]) error {
			return d.Send(letter{}, sqlq.To("post"))
		}),
	}})
	sender := open(t, admin, sqlq.Config{})
	forward := func() {
		p.soon(t, wakeWithin, func() error { return sender.Send(t.Context(), voucher{}, sqlq.To("first")) })
	}
	forward()
	for range 2 {
		conn, err := busy.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	for range 10 {
		eventually(t, "both sleep", func() (bool, string) {
			return asleep(t, admin, "sqlq", "first") == 1 && asleep(t, admin, "sqlq", "post") == 1, ""
		})
		forward()
	}
	stop()
	if n := count(t, admin, `SELECT count(*) FROM sqlq.instance WHERE endpoint = 'first' AND drained_at IS NOT NULL`); n != 1 {
		t.Error("the end of the process was not recorded")
	}
}
