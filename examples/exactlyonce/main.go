// Exactlyonce charges each order once, although the handler fails after writing the charge: the order and its command are
// committed together, and so are the charge and the removal of the command.
//
//	go run ./cmd/sqlq dev -- go run ./examples/exactlyonce
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

type ChargeOrder struct{ Order int }

func (ChargeOrder) MessageType() string { return "billing.ChargeOrder" }

// placeOrder, in the web front: the order and its command are committed together, or neither is.
func placeOrder(ctx context.Context, pool *pgxpool.Pool, client *sqlq.Client, id int) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO shop_order (id) VALUES ($1)`, id); err != nil {
			return err
		}
		return client.SendTx(ctx, tx, ChargeOrder{id})
	})
}

// charge, in Billing: what it writes and the removal of the message are committed together. If it fails, neither is.
func charge(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[ChargeOrder]) error {
	_, err := tx.Exec(ctx, `INSERT INTO charge (order_id) VALUES ($1)`, d.Message.Order)
	return err
}

const tables = `
	CREATE TABLE shop_order (id int PRIMARY KEY);
	CREATE TABLE charge (order_id int)` // no key that would prevent a second charge

func main() {
	ctx, stop := context.WithCancel(context.Background())
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	defer pool.Close()
	_, err = pool.Exec(ctx, tables)
	check(err)
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: map[string]string{"billing.ChargeOrder": "billing"}})
	check(err)

	var calls atomic.Int32
	flaky := func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[ChargeOrder]) error {
		if err := charge(ctx, tx, d); err != nil {
			return err
		}
		switch calls.Add(1) {
		case 2:
			return errors.New("the network failed after the charge was written")
		case 4:
			stop() // three orders, and one more attempt
		}
		return nil
	}
	billing := sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{sqlq.HandleTx(flaky)}}
	check(client.Prepare(ctx, billing))
	for id := 1; id <= 3; id++ {
		check(placeOrder(ctx, pool, client, id))
	}
	check(client.Run(ctx, billing))

	var charged int
	check(pool.QueryRow(context.Background(), `SELECT count(*) FROM charge`).Scan(&charged))
	fmt.Printf("%d attempts, %d orders charged\n", calls.Load(), charged)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
