// Monolith is one process whose modules communicate only by messages. Each is an endpoint with its own queue and tables; one Run
// handles them all. A module that needs a separate process moves there unchanged.
//
//	go run ./cmd/sqlq dev -- go run ./examples/monolith
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/examples/monolith/billing"
	"github.com/sqlq/sqlq/examples/monolith/mailing"
	"github.com/sqlq/sqlq/examples/monolith/ordering"
	"github.com/sqlq/sqlq/sqlq"
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	defer pool.Close()
	for _, tables := range []string{ordering.Tables, billing.Tables} {
		_, err := pool.Exec(ctx, tables)
		check(err)
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
	check(err)

	mailServer := func(_ context.Context, to, text string) error {
		fmt.Printf("To %s: %s\n", to, text)
		stop() // the last step of the only order
		return nil
	}
	modules := []sqlq.Endpoint{ordering.Endpoint(), billing.Endpoint(), mailing.Endpoint(mailServer)}
	check(client.Prepare(ctx, modules...)) // queues, routes and subscriptions, so that an order can come before Run
	check(client.Send(ctx, ordering.Place{Customer: "ada@example.com", Cents: 2990}))
	check(client.Run(ctx, modules...))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
