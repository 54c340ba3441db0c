package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// PlaceOrder is a command: it asks one endpoint to do something.
type PlaceOrder struct{ Order int }

func (PlaceOrder) MessageType() string { return "sales.PlaceOrder" }

// OrderPlaced is an event: it says what has happened, to whoever wants to know.
type OrderPlaced struct{ Order int }

func (OrderPlaced) MessageType() string { return "sales.OrderPlaced" }
func (OrderPlaced) IsEvent()            {}

// Sales places orders and publishes that it did; billing is told of each.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	pool, end := examplePool()
	defer end()

	client, err := sqlq.Open(ctx, pool, sqlq.Config{Logger: quietLog})
	check(err)
	sales := sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[PlaceOrder]) error {
			if _, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, d.Message.Order); err != nil {
				return err
			}
			return d.Publish(OrderPlaced{d.Message.Order}) // with the commit of the order, or not at all
		}),
	}}
	billing := sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[OrderPlaced]) error {
			fmt.Println("an invoice for order", d.Message.Order)
			stop() // ends Run, which would go on
			return nil
		}),
	}}
	check(client.Prepare(ctx, sales, billing)) // so that the next line finds the queue of sales, and billing has subscribed
	check(client.Send(ctx, PlaceOrder{Order: 17}))
	check(client.Run(ctx, sales, billing))
	// Output: an invoice for order 17
}

// A sender's transaction is the outbox: the message is sent if and when the order is there.
func ExampleClient_SendTx() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: map[string]string{"sales.PlaceOrder": "sales"}})
	check(err)
	check(client.Prepare(ctx, salesEndpoint))

	for _, order := range []int{17, -1} {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := client.SendTx(ctx, tx, PlaceOrder{order}); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, order)
			return err // of order −1, which the table does not allow
		})
		fmt.Println("order", order, "is in:", err == nil)
	}
	sales, err := ops.New(pool, "sqlq").Queues.Show(ctx, "sales")
	check(err)
	fmt.Println("messages sent:", sales.Ready.N)
	// Output:
	// order 17 is in: true
	// order -1 is in: false
	// messages sent: 1
}

// An event goes to every queue that is subscribed when it is published, a command to one.
func ExampleClient_Publish() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
	check(err)
	invoice := sqlq.Handle(func(context.Context, *sqlq.Delivery[OrderPlaced]) error { return nil })
	check(client.Prepare(ctx, sqlq.Endpoint{Name: "billing", Handlers: []sqlq.Handler{invoice}},
		sqlq.Endpoint{Name: "shipping", Handlers: []sqlq.Handler{invoice}}))

	check(client.Publish(ctx, OrderPlaced{Order: 17}))
	fmt.Println(errors.Is(client.Publish(ctx, PlaceOrder{Order: 18}), sqlq.ErrNotEvent))

	queues, err := ops.New(pool, "sqlq").Queues.List(ctx)
	check(err)
	for _, q := range queues {
		fmt.Println(q.Name, q.Ready.N)
	}
	// Output:
	// true
	// billing 1
	// shipping 1
}

// The error that a handler returns says what becomes of its message.
func ExampleHandle() {
	ctx, stop := context.WithCancel(context.Background())
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Logger: quietLog})
	check(err)
	sales := sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[PlaceOrder]) error {
			fmt.Println("attempt", d.Attempt)
			switch d.Attempt {
			case 1:
				return errors.New("no answer") // tried again, as the RetryPolicy says
			case 2:
				return sqlq.RetryAfter(10*time.Millisecond, errors.New("too many requests"))
			}
			stop()
			return sqlq.Unrecoverable(errors.New("there is no such article")) // to the error table, at once
		}),
	}}
	check(client.Prepare(ctx, sales))
	check(client.Send(ctx, PlaceOrder{Order: 17}))
	check(client.Run(ctx, sales))

	failed, err := ops.New(pool, "sqlq").Failed.List(context.Background(), ops.Filter{Queue: "sales"})
	check(err)
	for _, m := range failed {
		fmt.Printf("%s failed after %d attempts: %s\n", m.Type, m.Attempts, m.Error)
	}
	// Output:
	// attempt 1
	// attempt 2
	// attempt 3
	// sales.PlaceOrder failed after 3 attempts: there is no such article
}

// A batch handler writes the effects of several messages with one statement, and says which message has failed.
func ExampleHandleBatchTx() {
	ctx, stop := context.WithCancel(context.Background())
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Logger: quietLog})
	check(err)
	place := func(ctx context.Context, tx pgx.Tx, ds []*sqlq.BatchDelivery[PlaceOrder]) error {
		var ids []int
		for _, d := range ds {
			if d.Message.Order < 0 {
				d.Fail(sqlq.Unrecoverable(errors.New("there is no such order")))
				continue
			}
			ids = append(ids, d.Message.Order)
		}
		_, err := tx.Exec(ctx, `INSERT INTO orders (id) SELECT unnest($1::bigint[])`, ids)
		stop()
		return err
	}
	sales := sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{sqlq.HandleBatchTx(sqlq.Batch{Most: 500}, place)}}
	check(client.Prepare(ctx, sales))
	check(client.SendMany(ctx, []sqlq.Message{PlaceOrder{17}, PlaceOrder{-1}, PlaceOrder{18}}))
	check(client.Run(ctx, sales))

	var orders, failed int
	check(pool.QueryRow(context.Background(), `SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM sqlq.error)`).Scan(&orders, &failed))
	fmt.Println(orders, "orders,", failed, "failed message")
	// Output: 2 orders, 1 failed message
}

// What a HandleTx handler writes is there once, however often it runs.
func ExampleHandleTx() {
	ctx, stop := context.WithCancel(context.Background())
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Logger: quietLog})
	check(err)
	sales := sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[PlaceOrder]) error {
			if _, err := tx.Exec(ctx, `INSERT INTO orders (id) VALUES ($1)`, d.Message.Order); err != nil {
				return err
			}
			if d.Attempt == 1 {
				return errors.New("something else went wrong") // undoes the INSERT
			}
			stop()
			return nil
		}),
	}}
	check(client.Prepare(ctx, sales))
	check(client.Send(ctx, PlaceOrder{Order: 17}))
	check(client.Run(ctx, sales))

	var orders int
	check(pool.QueryRow(context.Background(), `SELECT count(*) FROM orders`).Scan(&orders))
	fmt.Println(orders, "order")
	// Output: 1 order
}

// A script takes the messages of a queue and says of each what becomes of it.
func ExampleClient_Receive() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Logger: quietLog})
	check(err)
	check(client.Prepare(ctx, salesEndpoint)) // creates the queue, which Receive does not
	check(client.SendMany(ctx, []sqlq.Message{PlaceOrder{Order: 17}, PlaceOrder{Order: 0}}))

	for range 2 {
		received, err := client.Receive(ctx, "sales", 1)
		check(err)
		for _, r := range received {
			var m PlaceOrder
			check(r.Decode(&m))
			if m.Order == 0 {
				check(r.Fail(ctx, sqlq.Unrecoverable(errors.New("an order needs a number")))) // it is in the error table now
				continue
			}
			fmt.Println("order", m.Order)
			check(r.Done(ctx)) // it is gone now
		}
	}
	check(client.Close(ctx))

	var failed int
	check(pool.QueryRow(ctx, `SELECT count(*) FROM sqlq.error`).Scan(&failed))
	fmt.Println(failed, "failed")
	// Output:
	// order 17
	// 1 failed
}

// salesEndpoint is one that is prepared only.
var salesEndpoint = sqlq.Endpoint{Name: "sales", Handlers: []sqlq.Handler{
	sqlq.Handle(func(context.Context, *sqlq.Delivery[PlaceOrder]) error { return nil })}}

// examplePool opens a pool on a database that has been migrated, with a table of orders.
func examplePool() (pool *pgxpool.Pool, end func()) {
	url, drop := pgtest.Example()
	pool, err := pgxpool.New(context.Background(), url)
	check(err)
	_, err = pool.Exec(context.Background(), `CREATE TABLE orders (id int PRIMARY KEY CHECK (id > 0))`)
	check(err)
	return pool, func() { pool.Close(); drop() }
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

// A process takes up an endpoint while others run, for a tenant that has just signed up, say, and gives it up again. However many there
// are, they share the process's few connections.
func ExampleClient_Start() {
	ctx := context.Background()
	pool, end := examplePool()
	defer end()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Logger: quietLog})
	check(err)
	handled := make(chan string)
	tenant := func(name string) sqlq.Endpoint {
		return sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{
			sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[OrderPlaced]) error {
				handled <- name
				return nil
			}),
		}}
	}
	acme, err := client.Start(ctx, tenant("acme"))
	check(err)
	check(client.Publish(ctx, OrderPlaced{Order: 17}))
	fmt.Println(<-handled, "has order 17")
	check(acme.Stop(ctx)) // its handlers finish first
	check(client.Close(ctx))
	// Output: acme has order 17
}
