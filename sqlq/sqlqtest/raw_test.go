package sqlqtest_test

import (
	"context"
	"testing"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

// forward passes on whatever comes, as an event.
func forward(_ context.Context, d *sqlq.Delivery[sqlq.Raw]) error {
	return d.Publish(sqlq.Raw{Type: "copy." + d.Message.Type, Body: d.Message.Body, ContentType: d.Message.ContentType})
}

// Raws are recorded, listed whatever their types are, and compared by type and content type too; a batch is recorded as single
// sends are.
func TestRawInTests(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sqlq.Endpoint{Name: "bridge", Otherwise: sqlq.HandleRaw("", forward)})
	receipts := h.SendBatch(t,
		sqlq.Envelope{Message: sqlq.Raw{Type: "a.Text", Body: []byte("x"), ContentType: "text/plain"}, Options: []sqlq.SendOption{sqlq.To("bridge")}},
		sqlq.Envelope{Message: sqlq.Raw{Type: "a.Seen", Body: []byte(`1`)}, Publish: true},
		sqlq.Envelope{Message: placeOrder{1, "1 EUR"}, Options: []sqlq.SendOption{sqlq.To("bridge")}})
	if len(receipts) != 3 || receipts[0].Copies != 1 {
		t.Errorf("%+v", receipts)
	}
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 2}); got != want {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	text := sqlq.Raw{Type: "a.Text", Body: []byte("x"), ContentType: "text/plain"}
	order := sqlq.Raw{Type: "sales.PlaceOrder", Body: []byte(`{"Order":1,"Total":"1 EUR"}`)}
	sqlqtest.ExpectSent(t, h, order, text)
	sqlqtest.ExpectPublished(t, h, sqlq.Raw{Type: "a.Seen", Body: []byte(`1`)}, sqlq.Raw{Type: "copy.a.Text", Body: []byte("x"), ContentType: "text/plain"},
		sqlq.Raw{Type: "copy.sales.PlaceOrder", Body: order.Body})
	sqlqtest.ExpectSent(t, h, placeOrder{1, "1 EUR"})
	text.Type = "a.Other"
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.ExpectSent(t, h, order, text) }), "a.Text")
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.Published[placeOrder](t, h) }), "is a command; use Sent")
	says(t, fake(t, func(t sqlqtest.TB) { sqlqtest.Sent[*sqlq.Raw](t, h) }), "not a pointer")
}

// A delivery of a Raw is made by hand as any other.
func TestRawDelivery(t *testing.T) {
	t.Parallel()
	d, out := sqlqtest.NewDelivery(t, sqlq.Raw{Type: "a.Text", Body: []byte("\x00x"), ContentType: "text/plain; a=b"})
	if d.Type != "a.Text" || d.Message.Type != "a.Text" || d.Headers["sqlq-content-type"] != "text/plain; a=b" {
		t.Errorf("%+v of %+v", d.Message, d.Incoming)
	}
	if err := forward(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	sqlqtest.ExpectPublished(t, out, sqlq.Raw{Type: "copy.a.Text", Body: []byte("\x00x"), ContentType: "text/plain; a=b"})
}
