package demo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// loyalty gives a point for each article. It joins late, and no publisher needs to know about it.
func loyalty() sqlq.Endpoint {
	return sqlq.Endpoint{Name: "loyalty", Concurrency: 2, Handlers: []sqlq.Handler{sqlq.HandleTx(givePoints)}}
}

func givePoints(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[OrderPlaced]) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO `+shopSchema+`.points (order_id, customer_id, points) VALUES ($1, $2, $3)`,
		d.Message.OrderID, d.Message.CustomerID, d.Message.Articles)
	if err != nil {
		return fmt.Errorf("give points for order %s: %w", d.Message.OrderID, err)
	}
	return nil
}
