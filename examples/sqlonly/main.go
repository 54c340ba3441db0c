// Sqlonly sends from SQL: a trigger on a business table, in shop.sql, calls sqlq.send, and a Go service handles the command.
// Anything that can run SQL can send; docs/sql.md describes all the functions.
//
//	go run ./cmd/sqlq dev -- go run ./examples/sqlonly
package main

import (
	"context"
	_ "embed"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// Reorder is how Go reads what the trigger writes. They share only the name of the type and the JSON of the body.
type Reorder struct {
	SKU    string `json:"sku"`
	Pieces int    `json:"pieces"`
}

func (Reorder) MessageType() string { return "purchasing.Reorder" }

//go:embed shop.sql
var shop string

// sold are statements as other programs, or somebody in psql, might run them.
var sold = []string{
	`UPDATE stock SET pieces = pieces - 20`,                     // refused, too few teapots: nothing is sent
	`UPDATE stock SET pieces = pieces - 40 WHERE sku = 'cup'`,   // 40 are left: sends
	`UPDATE stock SET pieces = pieces - 1 WHERE sku = 'cup'`,    // already ordered
	`UPDATE stock SET pieces = pieces - 5 WHERE sku = 'teapot'`, // 7 are left: sends
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	defer pool.Close()
	_, err = pool.Exec(ctx, shop)
	check(err)

	for _, statement := range sold {
		if _, err := pool.Exec(ctx, statement); err != nil {
			fmt.Println("refused:", err)
		}
	}

	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
	check(err)
	ordered := 0
	reorder := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[Reorder]) error {
		fmt.Printf("order %d × %s from the supplier\n", d.Message.Pieces, d.Message.SKU)
		if ordered++; ordered == 2 {
			stop()
		}
		return nil
	})
	check(client.Run(ctx, sqlq.Endpoint{
		Name: "purchasing", Handlers: []sqlq.Handler{reorder},
		Concurrency: 1, // the handler counts, and the output has an order
	}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
