// Package billing writes an invoice for each order. It learns of orders from ordering's event; ordering does not know billing.
package billing

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/examples/monolith/ordering"
	"github.com/sqlq/sqlq/sqlq"
)

// Invoiced says that an invoice was written.
type Invoiced struct {
	Invoice  int64
	Order    int64
	Customer string
	Cents    int
}

func (Invoiced) MessageType() string { return "billing.Invoiced" }
func (Invoiced) IsEvent()            {}

// Tables creates the module's tables.
const Tables = `
	CREATE SCHEMA billing
	CREATE TABLE invoices (number bigint GENERATED ALWAYS AS IDENTITY (START 1001) PRIMARY KEY, order_id bigint NOT NULL, cents int NOT NULL)`

// Endpoint is what the rest of the process sees of the module.
func Endpoint() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{sqlq.HandleTx(bill)}}
}

// bill writes exactly one invoice, even if the process dies on the way.
func bill(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[ordering.Placed]) error {
	m := d.Message
	invoiced := Invoiced{Order: m.Order, Customer: m.Customer, Cents: m.Cents}
	err := tx.QueryRow(ctx, `INSERT INTO billing.invoices (order_id, cents) VALUES ($1, $2) RETURNING number`,
		m.Order, m.Cents).Scan(&invoiced.Invoice)
	if err != nil {
		return err
	}
	return d.Publish(invoiced)
}
