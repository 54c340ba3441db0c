package demo

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// story is a running demo: its services, and how far the orders have come.
type story struct {
	*shop
	*screen
	pool   *pgxpool.Pool // to read the state
	pace   pace
	orders []Order // of the file

	client *client
	sales  *service
	queues []string // created so far

	replayed int64
}

// pace says how fast the story goes: unhurried if somebody is watching, otherwise brisk. It never waits for time to pass
// where it could wait for a state.
type pace struct {
	selling  time.Duration   // time per order in Sales, apart from the database
	shipping time.Duration   // likewise Shipping
	order    time.Duration   // interval between orders on a normal day
	delays   []time.Duration // of Sales' delayed retries
}

var (
	unhurried = pace{
		selling: 20 * time.Millisecond, shipping: 10 * time.Millisecond, order: 16 * time.Millisecond,
		delays: []time.Duration{500 * time.Millisecond, time.Second},
	}
	brisk = pace{
		selling: 2 * time.Millisecond, order: 4 * time.Millisecond,
		delays: []time.Duration{100 * time.Millisecond, 200 * time.Millisecond},
	}
)

// tell tells the story, up to the moment when the shop closes.
func (s *story) tell(ctx context.Context) error {
	// Two fifths of the orders come in the flood, one sixth after Loyalty, the rest while Sales is broken.
	n := len(s.orders)
	flood, late := s.orders[:n*2/5], s.orders[n-n/6:]
	usual := s.orders[len(flood) : n-len(late)]

	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.absorbFlood(ctx, flood); err != nil {
		return err
	}
	if err := s.bringShippingBack(ctx); err != nil {
		return err
	}
	wave, err := s.breakSales(ctx, usual)
	if err != nil {
		return err
	}
	if err := s.fixSales(ctx, wave); err != nil {
		return err
	}
	return s.addLoyalty(ctx, late)
}

// open starts the services for the first time. Shipping is stopped again: a queue gets the events that it is subscribed to
// whether its endpoint runs or not.
func (s *story) open(ctx context.Context) error {
	s.say("The client sends sales.PlaceOrder. Sales writes the order and publishes sales.OrderPlaced,")
	s.say("to which Billing and Shipping have subscribed. Each has its own connections and tables.")
	if err := s.startSales(ctx, rightDecimals); err != nil {
		return err
	}
	if _, err := s.start(ctx, "billing", 2, func(*pgxpool.Pool) sqlq.Endpoint { return billing() }); err != nil {
		return err
	}
	shipping, err := s.startShipping(ctx)
	if err != nil {
		return err
	}
	shipping.shutDown()
	s.queues = []string{"sales", "billing", "shipping"}
	s.client, err = s.openClient(ctx)
	return err
}

// absorbFlood: orders come much faster than Sales can place them, and no sender waits.
func (s *story) absorbFlood(ctx context.Context, orders []Order) error {
	s.title("1  The flood")
	s.say("%d orders arrive at once. Sales works at its own pace. Shipping is down.", len(orders))
	began := time.Now()
	wave := s.client.send(ctx, orders, 0)
	var backlog []int64
	_, err := s.until(ctx, "Sales works off the flood", func(now state) bool {
		backlog = append(backlog, now.waiting["sales"])
		s.progress(now.waiting["sales"], int64(len(orders)),
			fmt.Sprintf("%d wait for Sales, %d placed, %d billed", now.waiting["sales"], now.placed, now.billed))
		return wave.isOver() && now.isQuiet("shipping")
	})
	if err != nil {
		return err
	}
	s.saw("The client sent them in %s; its slowest send took %s.", brief(wave.took), brief(wave.slowestSend()))
	s.saw("Sales took %s. Its backlog: %s.", brief(time.Since(began)), course(backlog))
	return nil
}

// bringShippingBack: a service that was down finds everything that it missed.
func (s *story) bringShippingBack(ctx context.Context) error {
	s.title("2  Shipping comes back")
	began := time.Now()
	missed, err := readState(ctx, s.pool, s.queues)
	if err != nil {
		return err
	}
	s.say("%d events are waiting for it. The other services did not notice that it was down.", missed.waiting["shipping"])
	if _, err := s.startShipping(ctx); err != nil {
		return err
	}
	now, err := s.until(ctx, "Shipping catches up", func(now state) bool {
		s.progress(now.waiting["shipping"], missed.waiting["shipping"],
			fmt.Sprintf("%d wait for Shipping, %d shipped", now.waiting["shipping"], now.shipped))
		return now.isQuiet()
	})
	if err != nil {
		return err
	}
	s.saw("It started and caught up in %s: %d shipped.", brief(time.Since(began)), now.shipped)
	return nil
}

// breakSales: a release of Sales fails on some orders. They are retried, immediately and later, and go to the error table,
// while the others go through. When it returns, orders are still being sent.
func (s *story) breakSales(ctx context.Context, orders []Order) (*wave, error) {
	s.title("3  A bug in Sales")
	s.say("Sales 1.1 assumes two decimals for every currency: orders in JPY and KWD fail.")
	s.say("Orders keep coming, one every %s.", brief(s.pace.order))
	before, err := readState(ctx, s.pool, s.queues)
	if err != nil {
		return nil, err
	}
	s.sales.shutDown()
	if err := s.startSales(ctx, alwaysTwoDecimals); err != nil {
		return nil, err
	}
	enough := max(1, failing(orders)/3)
	wave := s.client.send(ctx, orders, s.pace.order)
	now, err := s.until(ctx, "the error table fills", func(now state) bool {
		s.progress(now.failed, enough, fmt.Sprintf("%d failed, %d retrying, %d placed", now.failed, now.retrying, now.placed))
		return now.failed >= enough || wave.isOver() && now.isQuiet()
	})
	if err != nil {
		return nil, err
	}
	s.saw("%d orders in so far. The good ones go through: %d placed.", wave.sent.Load(), now.placed-before.placed)
	s.saw("%d are in the error table, after %d attempts each over %s; %d are waiting for their next attempt.",
		now.failed, 2*(1+len(s.pace.delays)), brief(sum(s.pace.delays)), now.retrying)
	s.saw("The client notices nothing: its slowest send took %s.", brief(wave.slowestSend()))
	return wave, nil
}

// fixSales: an operator looks at the error table, the bug is fixed, and the failed messages are replayed.
func (s *story) fixSales(ctx context.Context, wave *wave) error {
	s.title("4  The operator")
	if err := s.showFailed(ctx); err != nil {
		return err
	}
	s.sales.shutDown()
	if err := s.startSales(ctx, rightDecimals); err != nil {
		return err
	}
	s.say("Sales 1.2 fixes it.")
	s.typed("sqlq error replay --queue sales")
	var err error
	if s.replayed, err = s.operator.Failed.Replay(ctx, ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); err != nil {
		return err
	}
	now, err := s.until(ctx, "the failed orders go through", func(now state) bool {
		s.progress(wave.sent.Load(), wave.orders,
			fmt.Sprintf("%d placed, %d billed, %d shipped", now.placed, now.billed, now.shipped))
		return wave.isOver() && now.isQuiet()
	})
	if err != nil {
		return err
	}
	s.saw("%d replayed; those still being retried went through by themselves.", s.replayed)
	s.saw("By now %d orders are placed, %d billed, %d shipped; %d are in the error table.", now.placed, now.billed, now.shipped, now.failed)
	return nil
}

// addLoyalty: a new service subscribes to an event that existed before it.
func (s *story) addLoyalty(ctx context.Context, orders []Order) error {
	s.title("5  Loyalty joins late")
	s.say("It subscribes to sales.OrderPlaced. Sales does not change. %d more orders arrive.", len(orders))
	// No order is in flight at this moment, so the audit can tell the orders before from those after by their time.
	if _, err := s.start(ctx, "loyalty", 1, func(*pgxpool.Pool) sqlq.Endpoint { return loyalty() }); err != nil {
		return err
	}
	s.queues = append(s.queues, "loyalty")
	wave := s.client.send(ctx, orders, s.pace.order)
	now, err := s.until(ctx, "the last orders go through", func(now state) bool {
		s.progress(now.rewarded, int64(len(orders)), fmt.Sprintf("%d placed, points given for %d", now.placed, now.rewarded))
		return wave.isOver() && now.isQuiet()
	})
	if err != nil {
		return err
	}
	s.saw("It received %d events: those published since it subscribed.", now.rewarded)
	return nil
}

func (s *story) startSales(ctx context.Context, decimals func(currency string) int) (err error) {
	v := sales{
		handling: s.pace.selling, decimals: decimals,
		retry: sqlq.RetryPolicy{Immediate: 1, Delays: s.pace.delays},
	}
	s.sales, err = s.start(ctx, "sales", 2, func(*pgxpool.Pool) sqlq.Endpoint { return v.endpoint() })
	return err
}

func (s *story) startShipping(ctx context.Context) (*service, error) {
	return s.start(ctx, "shipping", 1, func(pool *pgxpool.Pool) sqlq.Endpoint { return shipping{pool, s.pace.shipping}.endpoint() })
}

// until reads the state until done accepts it, and returns the last one.
func (s *story) until(ctx context.Context, what string, done func(state) bool) (now state, err error) {
	err = poll(ctx, func() (bool, error) {
		var err error
		if now, err = readState(ctx, s.pool, s.queues); err != nil {
			return false, err
		}
		return done(now), nil
	})
	s.status.End()
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("wait until %s: %w (%v)", what, err, now)
	}
	return now, err
}

// showFailed shows the error table as an operator sees it.
func (s *story) showFailed(ctx context.Context) error {
	failed, err := s.operator.Failed.List(ctx, ops.Filter{Queue: "sales"})
	if err != nil {
		return err
	}
	const shown = 4
	lines := [][]string{{"NUMBER", "QUEUE", "ATTEMPTS", "ERROR", "GROUP"}}
	for _, m := range failed[:min(shown, len(failed))] {
		lines = append(lines, []string{fmt.Sprint(m.Number), m.Queue, fmt.Sprint(m.Attempts), m.Error, m.Group})
	}
	s.typed(fmt.Sprintf("sqlq error ls --queue sales --limit %d", shown))
	s.table(lines, 3)
	groups := map[string]int{}
	for _, m := range failed {
		groups[m.Group]++
	}
	s.say("%d in all, in %d groups: one per cause, whatever numbers the texts contain.", len(failed), len(groups))
	return nil
}

// failing counts the orders that the bug affects.
func failing(orders []Order) (n int64) {
	for _, o := range orders {
		if rightDecimals(o.Currency) != alwaysTwoDecimals(o.Currency) {
			n++
		}
	}
	return n
}

// course shows the course of a backlog: up to its peak, and down again in a few steps.
func course(backlog []int64) string {
	const steps = 6
	peak := slices.Index(backlog, slices.Max(backlog))
	points := []string{"0"}
	for i := range steps {
		points = append(points, fmt.Sprint(backlog[peak+(len(backlog)-1-peak)*i/(steps-1)]))
	}
	return strings.Join(slices.Compact(points), " → ")
}

func sum(ds []time.Duration) (total time.Duration) {
	for _, d := range ds {
		total += d
	}
	return total
}

// brief formats a duration for a reader: 1.7 ms, 300 ms, 2.9 s.
func brief(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10 || ms == math.Trunc(ms):
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f ms", ms)
	}
}
