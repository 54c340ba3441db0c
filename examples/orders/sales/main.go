// Sales takes orders. See ../doc.go for how to run it with the others.
//
//	go run ./examples/orders/sales
package main

import (
	"context"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/examples/orders/contracts"
	"github.com/sqlq/sqlq/examples/orders/service"
	"github.com/sqlq/sqlq/sqlq"
)

const tables = `
	CREATE TABLE IF NOT EXISTS sales_order (
		id       bigint PRIMARY KEY,
		customer text NOT NULL,
		cents    bigint NOT NULL,
		placed   timestamptz NOT NULL DEFAULT now()
	)`

func main() {
	service.Main(tables, service.Handle(sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{sqlq.HandleTx(placeOrder)}}))
}

// placeOrder writes the order and publishes the event; both commit with the removal of the command, exactly once.
func placeOrder(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[contracts.PlaceOrder]) error {
	m := d.Message
	event := contracts.OrderPlaced{Order: m.Order, Customer: m.Customer, Cents: m.Cents}
	err := tx.QueryRow(ctx, `INSERT INTO sales_order (id, customer, cents) VALUES ($1, $2, $3) RETURNING placed`,
		m.Order, m.Customer, m.Cents).Scan(&event.Placed)
	if err != nil {
		return err
	}
	slog.Info("placed", "order", m.Order, "customer", m.Customer)
	return d.Publish(event)
}
