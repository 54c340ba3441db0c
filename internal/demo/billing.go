package demo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// billing writes an invoice for each order, in the transaction that removes the event: exactly one, although nothing in
// the table would prevent a second.
func billing() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "billing", Concurrency: 2, Handlers: []sqlq.Handler{sqlq.HandleTx(billOrder)}}
}

func billOrder(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[OrderPlaced]) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO `+shopSchema+`.invoices (order_id, customer_id, currency, amount) VALUES ($1, $2, $3, $4)`,
		d.Message.OrderID, d.Message.CustomerID, d.Message.Currency, d.Message.Total)
	if err != nil {
		return fmt.Errorf("bill order %s: %w", d.Message.OrderID, err)
	}
	return nil
}
