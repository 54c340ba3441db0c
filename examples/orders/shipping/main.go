// Shipping hands orders to a carrier. See ../doc.go for how to run it with the others.
//
//	go run ./examples/orders/shipping
package main

import (
	"context"
	"log/slog"

	"github.com/sqlq/sqlq/examples/orders/contracts"
	"github.com/sqlq/sqlq/examples/orders/service"
	"github.com/sqlq/sqlq/sqlq"
)

func main() {
	service.Main("", service.Handle(sqlq.Endpoint{Name: "shipping", Handlers: []sqlq.Handler{sqlq.Handle(ship)}}))
}

// ship works outside the database, so it may run twice for one event if the process dies on the way. What it calls must
// recognise that: the order's number is the same both times.
func ship(_ context.Context, d *sqlq.Delivery[contracts.OrderPlaced]) error {
	slog.Info("shipped", "order", d.Message.Order, "to", d.Message.Customer)
	return nil
}
