// Sql is ../pgx for services that use database/sql: SQLTx turns their transaction into one for SendTx. sqlq and
// database/sql share one connection pool; with another PostgreSQL driver each would have its own.
//
//	go run ./cmd/sqlq dev -- go run ./examples/outbox/sql
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

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
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	_, err = db.ExecContext(ctx, tables)
	check(err)
	operator := ops.New(pool, "sqlq")
	_, err = operator.Queues.Create(ctx, "shipping")
	check(err)
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: map[string]string{"shipping.ShipOrder": "shipping"}})
	check(err)

	for range 2 { // there is one teapot
		if err := placeOrder(ctx, db, client, "teapot"); err != nil {
			fmt.Println("refused:", err)
		}
	}

	var placed int
	check(db.QueryRowContext(ctx, `SELECT count(*) FROM shop_order`).Scan(&placed))
	fmt.Println("placed:", placed)
	waiting, err := operator.Ready.List(ctx, "shipping", ops.Filter{}, ops.Looking{})
	check(err)
	for _, m := range waiting {
		fmt.Println("to ship:", string(m.Body))
	}
}

func placeOrder(ctx context.Context, db *sql.DB, client *sqlq.Client, item string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	var order int64
	err = tx.QueryRowContext(ctx, `INSERT INTO shop_order (item) VALUES ($1) RETURNING id`, item).Scan(&order)
	if err != nil {
		return fmt.Errorf("store the order: %w", err)
	}
	if err := client.SendTx(ctx, sqlq.SQLTx(tx), ShipOrder{order, item}); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE stock SET pieces = pieces - 1 WHERE item = $1`, item); err != nil {
		return fmt.Errorf("take a %s from stock: %w", item, err)
	}
	return tx.Commit()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
