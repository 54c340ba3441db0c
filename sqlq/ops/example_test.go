package ops_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// What failed, in which groups, and, when the fault is fixed, back to the queue with it.
func Example() {
	ctx := context.Background()
	pool, end := failedOrders()
	defer end()
	o := ops.New(pool, "sqlq")

	filter := ops.Filter{Queue: "sales", Type: "sales.PlaceOrder"}
	groups, err := o.Failed.Groups(ctx, filter)
	check(err)
	for _, g := range groups {
		fmt.Printf("%d × %s\n", g.Count.N, g.Error)
	}
	filter.Group = groups[0].Group
	failed, err := o.Failed.List(ctx, filter)
	check(err)
	fmt.Printf("one of them: %s, after %d attempts\n", failed[0].Type, failed[0].Attempts)

	preview, err := o.Failed.PreviewReplay(ctx, filter, ops.ReplayOptions{})
	check(err)
	n, err := o.Failed.Replay(ctx, filter, ops.ReplayOptions{})
	check(err)
	fmt.Println("replayed", n, "of", preview.Messages.N)
	// Output:
	// 3 × card refused
	// 1 × out of stock
	// one of them: sales.PlaceOrder, after 15 attempts
	// replayed 3 of 3
}

// What is in the queues, and what an error says of one that is not there.
func ExampleQueues_List() {
	ctx := context.Background()
	pool, end := failedOrders()
	defer end()
	o := ops.New(pool, "sqlq")
	queues, err := o.Queues.List(ctx)
	check(err)
	for _, q := range queues {
		fmt.Println(q.Name, "ready:", q.Ready.N, "failed:", q.Failed.N)
	}
	_, err = o.Queues.Show(ctx, "salse")
	var none *ops.NoQueueError
	fmt.Println(errors.As(err, &none), err)
	// Output:
	// sales ready: 0 failed: 4
	// true queue "salse" does not exist in schema "sqlq"; there is "sales"
}

// failedOrders opens a pool on a database with a queue, some of whose messages have failed.
func failedOrders() (pool *pgxpool.Pool, end func()) {
	ctx := context.Background()
	url, drop := pgtest.Example()
	pool, err := pgxpool.New(ctx, url)
	check(err)
	_, err = ops.New(pool, "sqlq").Queues.Create(ctx, "sales")
	check(err)
	_, err = pool.Exec(ctx, `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, error_type, message, fingerprint)
		SELECT sqlq.uuid_v7(), 'sales', 'sales', 'h1', 'sales.PlaceOrder', '{"Order": 17}', 15, now(), now(), 'errors.errorString', e.message, md5(e.message)
		FROM unnest(ARRAY['card refused', 'card refused', 'out of stock', 'card refused']) e (message)`)
	check(err)
	return pool, func() { pool.Close(); drop() }
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}
