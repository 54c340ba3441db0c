package sqlqtest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// What counts as sent is what was committed, however it was sent: a transaction that is rolled back and a handler that fails
// have sent nothing.
func TestSentIsCommitted(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{Routes: map[string]string{"billing.Charge": "sales"}}, sales())
	ctx := t.Context()
	inTx := func(order int, end func(pgx.Tx) error) {
		t.Helper()
		tx, err := h.Pool.Begin(ctx)
		if err == nil {
			err = errors.Join(h.Client.SendTx(ctx, tx, placeOrder{order, "tx"}), h.Client.PublishTx(ctx, tx, orderPlaced{order, "tx"}), end(tx))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	inTx(1, func(tx pgx.Tx) error { return tx.Rollback(ctx) })
	inTx(2, func(tx pgx.Tx) error { return tx.Commit(ctx) })
	var many []sqlq.Message
	want := []placeOrder{{2, "tx"}, {3, "sql"}}
	for order := range 300 { // sent by COPY
		many, want = append(many, placeOrder{100 + order, "many"}), append(want, placeOrder{100 + order, "many"})
	}
	if err := h.Client.SendMany(ctx, many); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Pool.Exec(ctx, `SELECT sqlq.send('sales', 'sales.PlaceOrder', '{"Order": 3, "Total": "sql"}')`); err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectSent(t, h, want...)
	sqlqtest.ExpectPublished(t, h, orderPlaced{2, "tx"})
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 302}); got != want {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	if got := len(sqlqtest.Published[orderPlaced](t, h)); got != 303 {
		t.Errorf("%d events published, want 303", got)
	}
	sqlqtest.ExpectSent(t, h, want...) // even after they were handled
}

// A Record has everything that was given when sending; on its way through the tables a message is recorded once.
func TestRecord(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	id := sqlq.NewID()
	h.Send(t, placeOrder{Order: 1}, sqlq.WithID(id), sqlq.WithHeader("tenant", "north"), sqlq.WithCorrelationID("SO-1"), sqlq.Delay(time.Hour), sqlq.ExpiresIn(240*time.Hour))
	h.DrainAll(t) // delayed, handled, retried, failed
	if _, err := h.Pool.Exec(t.Context(), `SELECT sqlq.replay(queue => 'sales')`); err != nil {
		t.Fatal(err)
	}
	h.DrainAll(t)
	sent := sqlqtest.Sent[placeOrder](t, h)
	if len(sent) != 1 {
		t.Fatalf("sent: %+v", sent)
	}
	if s := sent[0]; s.ID != id || s.Queue != "sales" || s.CorrelationID != "SO-1" || len(s.Headers) != 1 || s.Headers["tenant"] != "north" ||
		s.Delay != time.Hour || s.ExpiresIn != 240*time.Hour || string(s.Body) != `{"Order":1,"Total":""}` {
		t.Errorf("sent: %+v", s)
	}
	failed := sqlqtest.Failed[placeOrder](t, h)
	if len(failed) != 1 || failed[0].ID != id || failed[0].Queue != "sales" || failed[0].CorrelationID != "SO-1" || failed[0].Headers["tenant"] != "north" {
		t.Errorf("failed: %+v", failed)
	}
	h.Send(t, placeOrder{2, "2 EUR"})
	h.Drain(t)
	event := sqlqtest.Published[orderPlaced](t, h)[0]
	if order := sqlqtest.Sent[placeOrder](t, h)[1]; event.ConversationID != order.ID.String() || event.Queue != "" || event.Headers != nil {
		t.Errorf("published %+v by the handler of %+v", event, order)
	}
}

// An event is published once, however many subscribers it has, even none, and whether or not it is delayed.
func TestPublishedOnce(t *testing.T) {
	t.Parallel()
	listens := func(name string) sqlq.Endpoint {
		return sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[orderPlaced]) error { return nil })}}
	}
	for _, c := range []struct {
		name      string
		endpoints []sqlq.Endpoint
	}{{"none", nil}, {"one", []sqlq.Endpoint{listens("a")}}, {"two", []sqlq.Endpoint{listens("a"), listens("b")}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := sqlqtest.Open(t, sqlq.Config{}, c.endpoints...)
			h.Publish(t, orderPlaced{1, "now"})
			h.Publish(t, orderPlaced{2, "later"}, sqlq.Delay(time.Hour))
			sqlqtest.ExpectPublished(t, h, orderPlaced{1, "now"}, orderPlaced{2, "later"})
			if n := len(c.endpoints); n > 0 {
				if got, want := h.DrainAll(t), (sqlqtest.Drained{Handled: 2 * n}); got != want {
					t.Errorf("drained %+v, want %+v", got, want)
				}
			}
			sqlqtest.ExpectPublished(t, h, orderPlaced{1, "now"}, orderPlaced{2, "later"})
			if got := sqlqtest.Published[orderPlaced](t, h)[1].Delay; got != time.Hour {
				t.Errorf("delay %v, want 1h", got)
			}
		})
	}
}

// Clients with the Harness's Config are recorded; other publishers of events without subscribers need Watch.
func TestOthersPublish(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{})
	publish := func(config sqlq.Config, order int) {
		t.Helper()
		c, err := sqlq.Open(t.Context(), h.Pool, config)
		if err == nil {
			err = c.Publish(t.Context(), orderPlaced{Order: order})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish(sqlq.Config{}, 1)
	sqlqtest.ExpectPublished[orderPlaced](t, h)
	h.Watch(t, orderPlaced{})
	publish(sqlq.Config{}, 2)
	if _, err := h.Pool.Exec(t.Context(), `SELECT sqlq.publish('sales.OrderPlaced', '{"Order": 3}'), sqlq.publish('sales.OrderPlaced', '{"Order": 4}', delay => '1 h')`); err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectPublished(t, h, orderPlaced{Order: 2}, orderPlaced{Order: 3}, orderPlaced{Order: 4})

	other := sqlqtest.Open(t, sqlq.Config{})
	c, err := sqlq.Open(t.Context(), other.Pool, other.Config)
	if err == nil {
		err = c.Publish(t.Context(), orderPlaced{Order: 5})
	}
	if err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectPublished(t, other, orderPlaced{Order: 5})
}

// Failed expectations show the differences and possible reasons.
func TestExpectationsThatFail(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	said := func(expect func(t sqlqtest.TB)) string { t.Helper(); return fake(t, expect) }
	h.Publish(t, orderPlaced{17, "17.00 EUR"})
	h.Publish(t, orderPlaced{18, "18.00 EUR"})

	got := said(func(t sqlqtest.TB) {
		sqlqtest.ExpectPublished(t, h, orderPlaced{18, "18.50 EUR"}, orderPlaced{17, "17.00 EUR"})
	})
	says(t, got, "sales.OrderPlaced: want 2 published, got 2\ndifferent (message ", "; - want, + got):\n",
		"      {\n        \"Order\": 18,\n    -   \"Total\": \"18.50 EUR\"\n    +   \"Total\": \"18.00 EUR\"\n      }\n")
	if strings.Count(got, "\n") != 7 {
		t.Errorf("it says more than it should:\n%s", got)
	}

	h.Send(t, placeOrder{Order: 1})
	h.DrainAll(t)
	says(t, said(func(t sqlqtest.TB) {
		sqlqtest.ExpectPublished(t, h, orderPlaced{17, "17.00 EUR"}, orderPlaced{18, "18.00 EUR"}, orderPlaced{Order: 1})
	}), "want 3 published, got 2\nnot published:\n    {\n      \"Order\": 1,\n", "other types sent: sales.PlaceOrder (1)\n",
		"failed messages:\n    sales.PlaceOrder in queue \"sales\", message ", "after 15 attempts: order 1: no total\n    {\n")
	says(t, said(func(t sqlqtest.TB) { sqlqtest.ExpectPublished(t, h, orderPlaced{17, "17.00 EUR"}) }),
		"want 1 published, got 2\npublished, but not expected (message ", `"Order": 18`)
	says(t, said(func(t sqlqtest.TB) { sqlqtest.ExpectSent[placeOrder](t, h) }), `want 0 sent, got 1`, `sent, but not expected (message `, `, queue "sales"):`)
	says(t, said(func(t sqlqtest.TB) { sqlqtest.ExpectSent(t, h, &charge{1}) }), "billing.Charge: want 1 sent, got 0\nnot sent:", "other types sent: sales.OrderPlaced (2), sales.PlaceOrder (1)")
	says(t, said(func(t sqlqtest.TB) { sqlqtest.ExpectNoneFailed(t, h) }), "messages have failed:\n", "order 1: no total")
	says(t, said(func(t sqlqtest.TB) { sqlqtest.ExpectFailed(t, h, placeOrder{Order: 2}) }), "want 1 in the error table, got 1", `-   "Order": 2`, `+   "Order": 1`)
	says(t, said(func(t sqlqtest.TB) { sqlqtest.Sent[orderPlaced](t, h) }), "orderPlaced is an event; use Published")
	says(t, said(func(t sqlqtest.TB) { sqlqtest.Sent[sqlq.Message](t, h) }), "sqlq.Message is an interface")

	if _, err := h.Pool.Exec(t.Context(), `SELECT sqlq.send('sales', 'sales.PlaceOrder', '{"Order": "one"}')`); err != nil {
		t.Fatal(err)
	}
	says(t, said(func(t sqlqtest.TB) { sqlqtest.Sent[placeOrder](t, h) }), "cannot be decoded as sqlqtest_test.placeOrder", `"Order": "one"`)
	h.Drain(t)
	if failed := sqlqtest.Failed[placeOrder](t, h); len(failed) != 2 || failed[1].Message != (placeOrder{}) || string(failed[1].Body) != `{"Order": "one"}` {
		t.Errorf("failed: %+v", failed)
	}

	for order := range 10 {
		h.Send(t, placeOrder{100 + order, "more"}, sqlq.To("sales"))
	}
	many := sqlqtest.Open(t, sqlq.Config{}, sales())
	for order := range 10 {
		many.Send(t, placeOrder{order, "more"})
	}
	says(t, said(func(t sqlqtest.TB) { sqlqtest.ExpectSent[placeOrder](t, many) }), "want 0 sent, got 10", "… and 5 more")
}

// A panic is shown with its place in the code.
func TestPanicIsShown(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sqlq.Endpoint{Name: "billing", Retry: sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{}}, Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[*charge]) error { panicHere(); return nil }),
	}})
	h.Send(t, &charge{17})
	h.Drain(t)
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.ExpectNoneFailed(t, h) }), "billing.Charge in queue \"billing\"", "after 1 attempt: panic: oh\n",
		"    {\n      \"Order\": 17\n    }\n    github.com/sqlq/sqlq/sqlq/sqlqtest_test.panicHere(", "sent_test.go:")
	if failed := sqlqtest.Failed[*charge](t, h); len(failed) != 1 || !strings.Contains(failed[0].Stack, "panicHere") {
		t.Errorf("failed: %+v", failed)
	}
}

//go:noinline
func panicHere() { panic("oh") }
