package sqlqtest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// placeAll is a batch handler: order 13 fails by itself.
func placeAll(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[placeOrder]) error {
	for _, d := range ds {
		if d.Message.Order == 13 {
			d.Fail(errors.New("no such order"))
		} else if err := d.Publish(orderPlaced(d.Message)); err != nil {
			return err
		}
	}
	return nil
}

// The deliveries of a batch handler are made by hand as those of others, and tell which message has failed.
func TestNewBatch(t *testing.T) {
	t.Parallel()
	ds, outbox := sqlqtest.NewBatch(t, []placeOrder{{12, "1 EUR"}, {13, "1 EUR"}, {14, "1 EUR"}})
	if err := placeAll(t.Context(), nil, ds); err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectPublished(t, outbox, orderPlaced{12, "1 EUR"}, orderPlaced{14, "1 EUR"})
	if ds[0].Failure() != nil || ds[1].Failure() == nil || ds[2].Failure() != nil || ds[1].ID == ds[2].ID || ds[2].Attempt != 1 {
		t.Errorf("failed: %v, %v, %v", ds[0].Failure(), ds[1].Failure(), ds[2].Failure())
	}
	if ds[1].Fail(nil); ds[1].Failure() != nil {
		t.Error("what has failed was taken back, and has a failure")
	}
	none, outbox := sqlqtest.NewBatch[placeOrder](t, nil)
	sqlqtest.ExpectPublished[orderPlaced](t, outbox)
	if len(none) != 0 {
		t.Errorf("%d deliveries of nothing", len(none))
	}
}

// A Harness runs batch handlers too, beside middleware and with the test's own Observer, and tells how their attempts went.
func TestBatchHandlerInAHarness(t *testing.T) {
	t.Parallel()
	var begun atomic.Int32
	config := sqlq.Config{Observer: &sqlq.Observer{Begun: func(ctx context.Context, _ sqlq.ObservedAttempt) context.Context {
		begun.Add(1)
		return ctx
	}}}
	retry := sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Hour}}
	h := sqlqtest.Open(t, config, sqlq.Endpoint{Name: "sales", Retry: retry, Handlers: []sqlq.Handler{sqlq.HandleBatchTx(sqlq.Batch{}, placeAll)}})
	for n := range 4 {
		h.Send(t, placeOrder{Order: 11 + n})
	}
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 3, Delayed: 1}); got != want {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	sqlqtest.ExpectPublished(t, h, orderPlaced{Order: 11}, orderPlaced{Order: 12}, orderPlaced{Order: 14})
	if got, want := h.DrainAll(t), (sqlqtest.Drained{Failed: 1}); got != want {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	if n := begun.Load(); n != 5 {
		t.Errorf("the test's own Observer saw %d attempts, want 5", n)
	}
}
