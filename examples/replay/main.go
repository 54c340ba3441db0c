// Replay deals with failures as an operator would, in Go: the error table has the failed messages, grouped by cause. If the
// program was wrong, it is corrected and its messages are replayed; if a message was wrong, it is edited first.
//
//	go run ./cmd/sqlq dev -- go run ./examples/replay
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

type Charge struct{ Customer, Amount string }

func (Charge) MessageType() string { return "billing.Charge" }

func main() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	check(err)
	defer pool.Close()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: map[string]string{"billing.Charge": "billing"}})
	check(err)
	operator := ops.New(pool, "sqlq").By(ops.Actor{OSUser: "grace", Reason: "amounts with a comma"})
	_, err = operator.Queues.Create(ctx, "billing")
	check(err)
	check(client.SendMany(ctx, []sqlq.Message{
		Charge{"Ada", "12.50"}, Charge{"Jürgen", "7,20"}, Charge{"", "3.00"}, Charge{"Elif", "19,99"},
	}))

	fmt.Println("Billing 1.0 cannot read every amount.")
	bill(ctx, client, 4, strconv.ParseFloat)
	groups, err := operator.Failed.Groups(ctx, ops.Filter{Queue: "billing"}) // $ sqlq error groups --queue billing
	check(err)
	for _, g := range groups {
		fmt.Printf("  failed: %d × %s\n", g.Count.N, g.Error)
	}

	fmt.Println("Billing 1.1 can. The messages that 1.0 could not read are replayed.")
	replayed, err := operator.Failed.Replay(ctx, ops.Filter{Group: groups[0].Group}, ops.ReplayOptions{})
	check(err)
	bill(ctx, client, int(replayed), func(amount string, bits int) (float64, error) {
		return strconv.ParseFloat(strings.ReplaceAll(amount, ",", "."), bits)
	})

	fmt.Println("The other message is wrong: it is edited and replayed.")
	message, err := operator.Failed.Show(ctx, fmt.Sprint(groups[1].Number))
	check(err)
	_, err = operator.Failed.Edit(ctx, message, ops.Edit{Body: []byte(`{"Customer": "Kim", "Amount": "3.00"}`)})
	check(err)
	replayed, err = operator.Failed.Replay(ctx, ops.Filter{Names: []string{message.ID}}, ops.ReplayOptions{})
	check(err)
	bill(ctx, client, int(replayed), strconv.ParseFloat)

	left, err := operator.Failed.Count(ctx, ops.Filter{})
	check(err)
	fmt.Println(left.N, "are left in the error table.")
}

// bill runs a release of the billing service until it has tried that many messages.
func bill(ctx context.Context, client *sqlq.Client, messages int, parse func(string, int) (float64, error)) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	charge := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[Charge]) error {
		if messages--; messages == 0 {
			defer stop() // Run settles what it has in hand and returns
		}
		if d.Message.Customer == "" {
			return errors.New("no customer to charge")
		}
		amount, err := parse(d.Message.Amount, 64)
		if err != nil {
			return fmt.Errorf("read the amount: %w", err)
		}
		fmt.Printf("  charged: %s %.2f\n", d.Message.Customer, amount)
		return nil
	})
	check(client.Run(ctx, sqlq.Endpoint{
		Name: "billing", Handlers: []sqlq.Handler{charge},
		Concurrency: 1,                                                          // keeps the story in order
		Retry:       sqlq.RetryPolicy{Immediate: -1, Delays: []time.Duration{}}, // and short: retries would not help
	}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
