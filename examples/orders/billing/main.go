// Billing writes an invoice for each placed order. See ../doc.go for how to run it with the others.
//
//	go run ./examples/orders/billing
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
	CREATE TABLE IF NOT EXISTS invoice (
		number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		order_id bigint NOT NULL,
		cents    bigint NOT NULL
	)`

func main() {
	service.Main(tables, service.Handle(sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{sqlq.HandleTx(bill)}}))
}

// bill need not check for an existing invoice: it writes in the transaction that removes the event.
func bill(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[contracts.OrderPlaced]) error {
	m := d.Message
	if _, err := tx.Exec(ctx, `INSERT INTO invoice (order_id, cents) VALUES ($1, $2)`, m.Order, m.Cents); err != nil {
		return err
	}
	slog.Info("billed", "order", m.Order, "cents", m.Cents)
	return nil
}
