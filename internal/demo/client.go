package demo

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// client is the shop's web site. It knows the queue of Sales and nothing else: it sends and carries on.
type client struct {
	sqlq    *sqlq.Client
	pool    *pgxpool.Pool
	fail    context.CancelCauseFunc // ends the story when a send fails
	running *sync.WaitGroup
}

func (s *shop) openClient(ctx context.Context) (*client, error) {
	pool, err := s.database.connect(ctx, "client", 2)
	if err != nil {
		return nil, err
	}
	c, err := sqlq.Open(ctx, pool, sqlq.Config{
		Schema: queueSchema, Logger: s.log, Routes: map[string]string{PlaceOrder{}.MessageType(): "sales"},
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("client: %w", err)
	}
	return &client{sqlq: c, pool: pool, fail: s.fail, running: &s.running}, nil
}

// wave is a series of orders being sent.
type wave struct {
	orders  int64
	sent    atomic.Int64
	slowest atomic.Int64  // the longest that the client has waited for one order, in nanoseconds
	took    time.Duration // known once it has ended
	ended   chan struct{}
}

// send sends the orders one by one, at intervals of pace (0: as fast as it can), while the story continues.
func (c *client) send(ctx context.Context, orders []Order, pace time.Duration) *wave {
	w := &wave{orders: int64(len(orders)), ended: make(chan struct{})}
	c.running.Go(func() {
		defer close(w.ended)
		if err := c.sendAll(ctx, w, orders, pace); err != nil {
			c.fail(err)
		}
	})
	return w
}

func (c *client) sendAll(ctx context.Context, w *wave, orders []Order, pace time.Duration) error {
	began := time.Now()
	defer func() { w.took = time.Since(began) }()
	next := began
	for _, o := range orders {
		if err := pause(ctx, time.Until(next)); err != nil {
			return nil // the story was interrupted
		}
		next = next.Add(pace)
		sending := time.Now()
		err := c.sqlq.Send(ctx, PlaceOrder{Order: o, Shown: FormatAmount(o.Total, o.Currency)}, sqlq.WithCorrelationID(o.ID))
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		w.slowest.Store(max(w.slowest.Load(), int64(time.Since(sending))))
		w.sent.Add(1)
	}
	return nil
}

// isOver reports whether all orders are sent, or the story has ended.
func (w *wave) isOver() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

func (w *wave) slowestSend() time.Duration { return time.Duration(w.slowest.Load()) }
