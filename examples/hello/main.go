// Hello sends a command and handles it: go run ./cmd/sqlq dev -- go run ./examples/hello
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/sqlq/sqlq/sqlq"
)

type Greet struct{ Name string }

func (Greet) MessageType() string { return "hello.Greet" }

func main() {
	ctx, stop := context.WithCancel(context.Background())
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
	check(err)
	greet := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[Greet]) error {
		fmt.Printf("Hello, %s!\n", d.Message.Name)
		stop() // ends Run, which would otherwise go on
		return nil
	})
	hello := sqlq.Endpoint{Name: "hello", Handlers: []sqlq.Handler{greet}}
	check(client.Prepare(ctx, hello))             // creates its queue; Run would do that too
	check(client.Send(ctx, Greet{Name: "world"})) // committed: now it can be handled here, elsewhere, tomorrow
	check(client.Run(ctx, hello))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
