package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// gate is a network that can be cut off: what goes through it is closed, and nothing new is let through.
type gate struct {
	dial pgconn.DialFunc
	mu   sync.Mutex
	shut bool
	open map[net.Conn]struct{}
}

func (g *gate) through(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		c.Close()
		return nil, errors.New("cut off")
	}
	g.open[c] = struct{}{}
	return c, nil
}

func (g *gate) cut(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut = shut; shut {
		for c := range g.open {
			c.Close()
		}
		clear(g.open)
	}
}

// gatedPool opens a pool through a gate on a fresh database.
func gatedPool(t *testing.T) (*pgxpool.Pool, *gate) {
	t.Helper()
	g := &gate{open: map[net.Conn]struct{}{}}
	return poolWith(t, pgtest.Database(t), func(config *pgxpool.Config) {
		g.dial = config.ConnConfig.DialFunc
		config.ConnConfig.DialFunc = g.through
	}), g
}

// An outage is said once with its beginning and once with its length, by the process and not by each of its connections; and
// when it is over, receiving goes on within a moment, however long it was.
func TestOutageIsSaidOnce(t *testing.T) {
	t.Parallel()
	pool, g := gatedPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['a', 'b', 'c']) q`)
	var said logged
	handled := make(chan string, 1000)
	c := open(t, pool, sqlq.Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	handler := func(name string) sqlq.Endpoint {
		return sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[posted]) error {
			handled <- name
			return nil
		})}}
	}
	run(t, c, handler("a"), handler("b"), handler("c"))
	publish := func() {
		t.Helper()
		eventually(t, "published", func() (bool, string) {
			err := c.Publish(t.Context(), posted{})
			return err == nil, fmt.Sprint(err)
		})
	}
	get := func(within time.Duration) {
		t.Helper()
		deadline := time.After(within)
		for n := range 3 {
			select {
			case <-handled:
			case <-deadline:
				t.Fatalf("%d of 3 were handled within %v:\n%s", n, within, said.all())
			}
		}
	}
	eventually(t, "listening", func() (bool, string) { return c.Stats().Listening, "" })
	publish()
	get(patience)
	for round, outage := range []time.Duration{5 * time.Second, 100 * time.Millisecond} {
		g.cut(true)
		<-time.After(outage) // for as long as it lasts
		g.cut(false)
		publish()
		get(3 * time.Second)
		eventually(t, "it listens again", func() (bool, string) { return c.Stats().Listening, "" })
		if round > 0 {
			break // so soon after the other it is of no account
		}
		eventually(t, "its end is said", func() (bool, string) {
			return strings.Contains(said.all(), "the database is back"), said.all()
		})
		text := said.all()
		_, after, _ := strings.Cut(text, " after=")
		length, err := time.ParseDuration(strings.Fields(after)[0])
		if err != nil || length < outage-time.Second || length > outage+patience {
			t.Errorf("the outage of %v is said to have been one of %v, %v", outage, length, err)
		}
	}
	text := said.all()
	if warnings, begun, over := strings.Count(text, "level=WARN"), strings.Count(text, "lost the database"), strings.Count(text, "the database is back"); warnings != 1 || begun != 1 || over != 1 {
		t.Errorf("%d warnings, %d beginnings, %d ends; want one each:\n%s", warnings, begun, over, text)
	}
}
