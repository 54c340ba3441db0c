// Package ordering takes orders. Other modules know its messages, but neither its code nor its tables.
package ordering

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// Place asks ordering to take an order.
type Place struct {
	Customer string
	Cents    int
}

func (Place) MessageType() string { return "ordering.Place" }

// Placed says that ordering has taken an order. It contains everything that others need, so they need not ask.
type Placed struct {
	Order    int64
	Customer string
	Cents    int
}

func (Placed) MessageType() string { return "ordering.Placed" }
func (Placed) IsEvent()            {}

// Tables creates the module's tables.
const Tables = `
	CREATE SCHEMA ordering
	CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text NOT NULL, cents int NOT NULL)`

// Endpoint is what the rest of the process sees of the module.
func Endpoint() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "ordering", Handlers: []sqlq.Handler{sqlq.HandleTx(place)}}
}

func place(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[Place]) error {
	placed := Placed{Customer: d.Message.Customer, Cents: d.Message.Cents}
	err := tx.QueryRow(ctx, `INSERT INTO ordering.orders (customer, cents) VALUES ($1, $2) RETURNING id`,
		placed.Customer, placed.Cents).Scan(&placed.Order)
	if err != nil {
		return err
	}
	return d.Publish(placed)
}
