// Urls opens a topic and two subscriptions by URL, as programs do that take them from their configuration. From the repository's folder:
//
//	go run ./cmd/sqlq dev -- go -C adapters/gocloud run ./examples/urls
package main

import (
	"context"
	"fmt"
	"log"

	"gocloud.dev/pubsub"

	_ "github.com/sqlq/sqlq/adapters/gocloud" // registers sqlq://, with the database of $DATABASE_URL
)

func main() {
	ctx := context.Background()
	billing, err := pubsub.OpenSubscription(ctx, "sqlq://billing?topic=orders.placed")
	check(err)
	shipping, err := pubsub.OpenSubscription(ctx, "sqlq://shipping?topic=orders.placed")
	check(err)
	orders, err := pubsub.OpenTopic(ctx, "sqlq://orders.placed?content_type=application/json")
	check(err)
	check(orders.Send(ctx, &pubsub.Message{Body: []byte(`{"order":"SO-1"}`), Metadata: map[string]string{"shop": "7"}}))

	for _, s := range []struct {
		name string
		*pubsub.Subscription
	}{{"billing", billing}, {"shipping", shipping}} {
		m, err := s.Receive(ctx)
		check(err)
		fmt.Printf("%s received %s from shop %s\n", s.name, m.Body, m.Metadata["shop"])
		m.Ack()
		check(s.Shutdown(ctx))
	}
	check(orders.Shutdown(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
