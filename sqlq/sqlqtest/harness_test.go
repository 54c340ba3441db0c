package sqlqtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/sqlqtest"
)

type placeOrder struct {
	Order int
	Total string `json:",omitempty"`
}

func (placeOrder) MessageType() string { return "sales.PlaceOrder" }

type orderPlaced struct{ Order int }

func (orderPlaced) MessageType() string { return "sales.OrderPlaced" }
func (orderPlaced) IsEvent()            {}

func sales() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(_ context.Context, _ pgx.Tx, d *sqlq.Delivery[placeOrder]) error {
			return d.Publish(orderPlaced{d.Message.Order})
		}),
	}}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	h := sqlqtest.Open(t, sqlq.Config{}, sales())
	h.Send(t, placeOrder{Order: 17})
	if got, want := h.Drain(t), (sqlqtest.Drained{Handled: 1}); got != want {
		t.Errorf("drained %+v, want %+v", got, want)
	}
	sqlqtest.ExpectSent(t, h, placeOrder{Order: 17})
	sqlqtest.ExpectPublished(t, h, orderPlaced{Order: 17})
	sqlqtest.ExpectNoneFailed(t, h)
}

func BenchmarkDatabase(b *testing.B) {
	sqlqtest.Database(b) // the server and the template
	for b.Loop() {
		sqlqtest.Database(b)
	}
}

func BenchmarkOpenAndDrain(b *testing.B) {
	sqlqtest.Database(b)
	for b.Loop() {
		h := sqlqtest.Open(b, sqlq.Config{}, sales())
		h.Send(b, placeOrder{Order: 17})
		h.Drain(b)
	}
}
