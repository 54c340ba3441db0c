// Pgx stores an order and sends the command that goes with it in one transaction: both are there, or neither. An order that the
// database refuses, here because there is no stock, is never shipped. The other folders do the same with database/sql and sqlx.
//
//	go run ./cmd/sqlq dev -- go run ./examples/outbox/pgx
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

type ShipOrder struct {
	Order int64
	Item  string
}

func (ShipOrder) MessageType() string { return "shipping.ShipOrder" }

const tables = `
	CREATE TABLE shop_order (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, item text NOT NULL);
	CREATE TABLE stock (item text PRIMARY KEY, pieces int NOT NULL CHECK (pieces >= 0));
	INSERT INTO stock VALUES ('teapot', 1)`

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	defer pool.Close()
	_, err = pool.Exec(ctx, tables)
	check(err)
	operator := ops.New(pool, "sqlq")
	_, err = operator.Queues.Create(ctx, "shipping") // the shipping service would do that when it first runs
	check(err)
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: map[string]string{"shipping.ShipOrder": "shipping"}})
	check(err)

	for range 2 { // there is one teapot
		if err := placeOrder(ctx, pool, client, "teapot"); err != nil {
			fmt.Println("refused:", err)
		}
	}

	var placed int
	check(pool.QueryRow(ctx, `SELECT count(*) FROM shop_order`).Scan(&placed))
	fmt.Println("placed:", placed)
	waiting, err := operator.Ready.List(ctx, "shipping", ops.Filter{}, ops.Looking{})
	check(err)
	for _, m := range waiting {
		fmt.Println("to ship:", string(m.Body))
	}
}

// placeOrder does all three things or none. The order of the steps does not matter: the command is invisible before the commit.
func placeOrder(ctx context.Context, pool *pgxpool.Pool, client *sqlq.Client, item string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var order int64
		err := tx.QueryRow(ctx, `INSERT INTO shop_order (item) VALUES ($1) RETURNING id`, item).Scan(&order)
		if err != nil {
			return fmt.Errorf("store the order: %w", err)
		}
		if err := client.SendTx(ctx, tx, ShipOrder{order, item}); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE stock SET pieces = pieces - 1 WHERE item = $1`, item); err != nil {
			return fmt.Errorf("take a %s from stock: %w", item, err)
		}
		return nil
	})
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
