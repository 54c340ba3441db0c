// Client is the shop's front: it places three orders and exits. See ../doc.go for how to run it with the others.
//
//	go run ./examples/orders/client
package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/examples/orders/contracts"
	"github.com/sqlq/sqlq/examples/orders/service"
	"github.com/sqlq/sqlq/sqlq"
)

const tables = `
	CREATE TABLE IF NOT EXISTS checkout (
		id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
		customer text NOT NULL,
		cents    bigint NOT NULL
	)`

func main() { service.Main(tables, checkOut) }

func checkOut(ctx context.Context, pool *pgxpool.Pool, client *sqlq.Client) error {
	for _, customer := range []string{"Ada", "Jürgen", "Elif"} {
		if err := place(ctx, pool, client, customer, 2990); err != nil {
			return fmt.Errorf("place an order for %s: %w", customer, err)
		}
	}
	return nil
}

// place writes the order and sends the command in one transaction. It does not wait for Sales, which may be down.
func place(ctx context.Context, pool *pgxpool.Pool, client *sqlq.Client, customer string, cents int64) error {
	order := contracts.PlaceOrder{Customer: customer, Cents: cents}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `INSERT INTO checkout (customer, cents) VALUES ($1, $2) RETURNING id`, customer, cents).Scan(&order.Order)
		if err != nil {
			return err
		}
		return client.SendTx(ctx, tx, order)
	})
	if err == nil {
		slog.Info("sent", "order", order.Order, "customer", customer)
	}
	return err
}
