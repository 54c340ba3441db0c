// Router writes orders and publishes their events in one transaction; a Watermill router charges them, and publishes what the mailing
// handler prints. From the repository's folder:
//
//	go run ./cmd/sqlq dev -- go -C adapters/watermill run ./examples/router
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"slices"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	sqlqwatermill "github.com/sqlq/sqlq/adapters/watermill"
	"github.com/sqlq/sqlq/sqlq"
)

var orders = []string{"SO-1", "SO-2", "SO-3"}

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	defer pool.Close()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
	check(err)
	publisher, err := sqlqwatermill.NewPublisher(client, sqlqwatermill.PublisherConfig{ContentType: "application/json"})
	check(err)
	billing, err := sqlqwatermill.NewSubscriber(client, sqlqwatermill.SubscriberConfig{ConsumerGroup: "billing", Concurrency: 10})
	check(err)
	mailing, err := sqlqwatermill.NewSubscriber(client, sqlqwatermill.SubscriberConfig{ConsumerGroup: "mailing"})
	check(err)

	mails := make(chan string, len(orders))
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)
	router.AddHandler("charge", "orders.placed", billing, "orders.charged", publisher, func(m *message.Message) ([]*message.Message, error) {
		return message.Messages{message.NewMessage(watermill.NewUUID(), m.Payload)}, nil
	})
	router.AddConsumerHandler("mail", "orders.charged", mailing, func(m *message.Message) error {
		mails <- string(m.Payload)
		return nil
	})
	ended := make(chan error)
	go func() { ended <- router.Run(ctx) }()
	<-router.Running() // both are subscribed: nothing that is published from now on is lost

	_, err = pool.Exec(ctx, `CREATE TABLE shop_order (id text PRIMARY KEY)`)
	check(err)
	for _, order := range orders {
		check(place(ctx, pool, client, order))
	}
	var got []string
	for range orders {
		got = append(got, <-mails)
	}
	slices.Sort(got) // the order of messages is not guaranteed
	fmt.Println("charged and mailed:", got)
	check(router.Close())
	check(<-ended)
	check(client.Close(ctx))
}

// place stores an order and its event, both or neither.
func place(ctx context.Context, pool *pgxpool.Pool, client *sqlq.Client, order string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO shop_order (id) VALUES ($1)`, order); err != nil {
			return err
		}
		publisher, err := sqlqwatermill.NewTxPublisher(client, tx, sqlqwatermill.PublisherConfig{ContentType: "application/json"})
		if err != nil {
			return err
		}
		return publisher.Publish("orders.placed", message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "%q", order)))
	})
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
