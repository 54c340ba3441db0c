package sqlqtest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

type PlaceOrder struct {
	Order int
	Total string
}

func (PlaceOrder) MessageType() string { return "shop.PlaceOrder" }

type OrderPlaced struct {
	Order int
	Total string
}

func (OrderPlaced) MessageType() string { return "shop.OrderPlaced" }
func (OrderPlaced) IsEvent()            {}

// place is the handler under test.
func place(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[PlaceOrder]) error {
	if d.Message.Total == "" {
		return errors.New("no total")
	}
	return d.Publish(OrderPlaced(d.Message))
}

var shop = sqlq.Endpoint{Name: "shop", Handlers: []sqlq.Handler{sqlq.HandleTx(place)}}

// A handler is a function: NewDelivery makes what it takes, without a database.
func ExampleNewDelivery() {
	t := beginExample() // a test has its *testing.T
	defer t.end()

	d, outbox := sqlqtest.NewDelivery(t, PlaceOrder{Order: 17, Total: "17.00 EUR"})
	err := place(context.Background(), nil, d)
	fmt.Println("error:", err)
	for _, event := range sqlqtest.Published[OrderPlaced](t, outbox) {
		fmt.Println("order", event.Message.Order, "for", event.Message.Total)
	}
	// Output:
	// error: <nil>
	// order 17 for 17.00 EUR
}

// Drain handles everything that is waiting.
func ExampleHarness_Drain() {
	t := beginExample() // a test has its *testing.T
	defer t.end()

	h := sqlqtest.Open(t, sqlq.Config{}, shop)
	h.Send(t, PlaceOrder{Order: 17, Total: "17.00 EUR"})
	h.Send(t, PlaceOrder{Order: 18, Total: "18.00 EUR"})
	fmt.Printf("%+v\n", h.Drain(t))
	sqlqtest.ExpectPublished(t, h, OrderPlaced{18, "18.00 EUR"}, OrderPlaced{17, "17.00 EUR"})
	sqlqtest.ExpectNoneFailed(t, h)
	// Output:
	// {Handled:2 Failed:0 Delayed:0}
}

// Time passes without waiting.
func ExampleHarness_Advance() {
	t := beginExample() // a test has its *testing.T
	defer t.end()

	h := sqlqtest.Open(t, sqlq.Config{}, shop)
	h.Send(t, PlaceOrder{Order: 17, Total: "17.00 EUR"}, sqlq.Delay(24*time.Hour))
	fmt.Printf("today:    %+v\n", h.Drain(t))
	h.Advance(t, 24*time.Hour)
	fmt.Printf("tomorrow: %+v\n", h.Drain(t))
	// Output:
	// today:    {Handled:0 Failed:0 Delayed:1}
	// tomorrow: {Handled:1 Failed:0 Delayed:0}
}

// A message that cannot be handled is retried and finally ends up in the error table.
func ExampleHarness_DrainAll() {
	t := beginExample() // a test has its *testing.T
	defer t.end()

	h := sqlqtest.Open(t, sqlq.Config{}, shop)
	h.Send(t, PlaceOrder{Order: 17})
	fmt.Printf("the first attempts: %+v\n", h.Drain(t))
	fmt.Printf("all attempts:       %+v\n", h.DrainAll(t))
	for _, f := range sqlqtest.Failed[PlaceOrder](t, h) {
		fmt.Printf("order %d failed after %d attempts: %s\n", f.Message.Order, f.Attempts, f.Error)
	}
	// Output:
	// the first attempts: {Handled:0 Failed:0 Delayed:1}
	// all attempts:       {Handled:0 Failed:1 Delayed:0}
	// order 17 failed after 15 attempts: no total
}

// A failing expectation shows the differences.
func ExampleExpectPublished() {
	t := beginExample() // a test has its *testing.T
	defer t.end()

	h := sqlqtest.Open(t, sqlq.Config{})
	id, _ := sqlq.ParseID("01890a5d-ac96-774b-bcce-b302099a8057")
	h.Publish(t, OrderPlaced{Order: 17, Total: "1.70 EUR"}, sqlq.WithID(id))
	sqlqtest.ExpectPublished(t, h, OrderPlaced{Order: 17, Total: "17.00 EUR"})
	// Output:
	// sqlqtest: shop.OrderPlaced: want 1 published, got 1
	// different (message 01890a5d-ac96-774b-bcce-b302099a8057; - want, + got):
	//       {
	//         "Order": 17,
	//     -   "Total": "17.00 EUR"
	//     +   "Total": "1.70 EUR"
	//       }
}

// exampleT is a test that prints its errors.
type exampleT struct{ cleanups []func() }

func beginExample() *exampleT { return &exampleT{} }

func (t *exampleT) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Name() string                      { return "Example" }
func (t *exampleT) Logf(string, ...any)               {}
func (t *exampleT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (t *exampleT) FailNow()                          { panic("the example has failed") }
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
