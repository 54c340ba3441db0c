// Package demo is the order story that sqlq demo shows: a shop's orders, realistic input from testdata/orders.jsonl, pass
// through its services.
//
// story.go tells it from beginning to end. The services are in sales.go, billing.go, shipping.go and loyalty.go, with
// their tables in shop.go; service.go runs them, client.go sends them the orders. audit.go checks the outcome in SQL and
// trusts nothing else.
package demo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
	"github.com/sqlq/sqlq/testdata"
)

// Options says how the story is told. The zero value prints nothing and runs as fast as it can.
type Options struct {
	// DatabaseURL names a database to use, in which the demo creates two schemas and removes them at the end. Default: a
	// throw-away server, whatever the environment says.
	DatabaseURL string

	// ListenURL leads past a transaction pooler that DatabaseURL goes through; see sqlq.Config. Default: none.
	ListenURL string

	// Out gets the story as text. Default: it is discarded.
	Out io.Writer

	// Terminal says that somebody is watching Out: there is a progress line, and the story takes its time.
	Terminal bool
	Palette  term.Palette // of Out
	Width    int          // of the Terminal, in characters. Default 80

	// Notices gets a line when the server must be downloaded. Default: os.Stderr.
	Notices io.Writer

	// Log gets what the library logs. Default: it is discarded; failed messages are part of the story.
	Log *slog.Logger

	// Sabotage damages the business tables before the audit, which must notice. Default: no damage.
	Sabotage Sabotage

	file []byte // the orders; default: testdata.Orders
	pace *pace  // default: unhurried on a terminal, else brisk
}

// Result is the outcome of the story, as the audit found it.
type Result struct {
	Orders             int64   `json:"orders"` // in the file
	Placed             int64   `json:"placed"` // how many are in Sales' table; likewise the next two
	Billed             int64   `json:"billed"`
	Shipped            int64   `json:"shipped"`
	Loyalty            int64   `json:"loyalty"`     // orders that Loyalty gave points for
	LoyaltyDue         int64   `json:"loyalty_due"` // those that were placed after it had subscribed
	FailedThenReplayed int64   `json:"failed_then_replayed"`
	Lost               int64   `json:"lost"`       // rows that are missing
	Duplicated         int64   `json:"duplicated"` // rows that are there too often
	Seconds            float64 `json:"seconds"`
}

// ErrStopped is returned by Run when ctx ended before the audit was done.
var ErrStopped = errors.New("the demo was stopped")

// Run tells the story and audits it. It leaves nothing behind: when it returns, the server or the schemas are gone, even
// if ctx ended it early. Errors: ErrAudit, together with the Result; ErrStopped; and any error of the database, the library
// or a service.
func Run(ctx context.Context, o Options) (Result, error) {
	began := time.Now()
	o = o.withDefaults()
	orders, err := ReadOrders(bytes.NewReader(o.file))
	if err != nil {
		return Result{}, err
	}
	d, err := openDatabase(ctx, o.DatabaseURL, o.Notices)
	if err != nil {
		return Result{}, stopped(ctx, err)
	}
	d.listenURL = o.ListenURL
	result, err := run(ctx, d, orders, o, began)
	return result, errors.Join(stopped(ctx, err), d.close())
}

// stopped replaces the error that a step returned because ctx had ended.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, ErrAudit) {
		return ErrStopped
	}
	return err
}

func run(ctx context.Context, d *database, orders []Order, o Options, began time.Time) (Result, error) {
	pool, err := d.connect(ctx, "operator", 2)
	if err != nil {
		return Result{}, err
	}
	defer pool.Close()
	screen := newScreen(o)
	defer screen.status.End()
	screen.line(screen.palette.Paint(term.Bold, fmt.Sprintf("%d orders on %s", len(orders), d.server.Origin())))

	replayed, err := runShop(ctx, d, pool, screen, orders, o)
	if err != nil {
		return Result{}, err
	}
	if err := o.Sabotage.commit(ctx, pool, screen); err != nil {
		return Result{}, err
	}
	var found report
	err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) (err error) {
		found, err = audit(ctx, tx, o.file)
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("audit: %w", err)
	}
	result := Result{
		Orders: int64(len(orders)), Placed: found.placed, Billed: found.billed, Shipped: found.shipped,
		Loyalty: found.points, LoyaltyDue: found.pointsDue, FailedThenReplayed: replayed,
		Lost: found.lost, Duplicated: found.duplicated, Seconds: math.Round(time.Since(began).Seconds()*100) / 100,
	}
	found.tell(screen, result)
	return result, found.err()
}

func (o Options) withDefaults() Options {
	if o.Out == nil {
		o.Out = io.Discard
	}
	o.Width = cmp.Or(o.Width, 80)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.file == nil {
		o.file = testdata.Orders
	}
	if o.pace == nil {
		o.pace = &brisk
		if o.Terminal {
			o.pace = &unhurried
		}
	}
	return o
}

// runShop runs the services and the client through the story. When it returns, all of them have stopped.
func runShop(ctx context.Context, d *database, pool *pgxpool.Pool, screen *screen, orders []Order, o Options) (replayed int64, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	shop := &shop{database: d, operator: ops.New(pool, queueSchema), log: o.Log, fail: fail}
	s := &story{shop: shop, screen: screen, pool: pool, pace: *o.pace, orders: orders}
	defer func() {
		fail(nil)
		shop.running.Wait()
		if s.client != nil {
			s.client.pool.Close()
		}
	}()
	go func() {
		select {
		case <-d.server.Done():
			fail(errors.New("the server has stopped unexpectedly"))
		case <-ctx.Done():
		}
	}()
	if err := s.tell(ctx); err != nil {
		return 0, cmp.Or(context.Cause(ctx), err)
	}
	return s.replayed, nil
}

// tell prints the audit's result for a reader.
func (r report) tell(s *screen, result Result) {
	s.title("The audit, in its own SQL")
	s.say("%-22s %5d", "orders in the file", result.Orders)
	s.say("%-22s %5d", "placed", result.Placed)
	s.say("%-22s %5d", "billed", result.Billed)
	s.say("%-22s %5d", "shipped", result.Shipped)
	s.say("%-22s %5d   of %d placed since it subscribed", "loyalty", result.Loyalty, result.LoyaltyDue)
	s.say("%-22s %5d", "failed, then replayed", result.FailedThenReplayed)
	s.say("%-22s %5d", "lost", r.lost)
	s.say("%-22s %5d", "duplicated", r.duplicated)
	s.say("%-22s %5d", "wrong", r.wrong)
	s.say("%-22s %5d", "messages left", r.leftOver)
	for _, fault := range r.faults {
		s.missed("%s", term.OneLine(fault))
	}
	if r.err() == nil {
		s.saw("Each order is placed, billed and shipped exactly once. %.1f s.", result.Seconds)
	}
}
