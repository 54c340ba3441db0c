package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
)

func watermillSubjects() []subject {
	version := moduleVersion("github.com/ThreeDotsLabs/watermill-sql/v4")
	tuned := "PollInterval 20 ms, as River tuned; SubscribeBatchSize 1,000 (default 100). One subscriber: a second one would " +
		"wait for the first one's row locks. pgx, without database/sql."
	log := "A log: at least once, in order, each message to every consumer group, which keeps an offset. Messages stay in the " +
		"table until the user deletes them, and that is not in its figures. One message is handled at a time. No LISTEN: it polls. It does not see past the " +
		"oldest open transaction of the whole server."
	queue := "At least once, in order, until a subscriber is closed in the middle of a batch: that deletes the rest of the " +
		"batch unhandled (seen with v4.1.5: 10 of 1,000 handled, none left). Acknowledged messages are deleted (DeleteOnAck). " +
		"One message is handled at a time. No LISTEN: it polls. It locks without SKIP LOCKED, so that subscribers wait for " +
		"one another."
	return []subject{{
		key:      "watermill",
		title:    "Watermill-SQL, log, tuned",
		version:  version,
		rows:     allRows,
		make:     func() system { return &watermillSystem{tuned: true} },
		tuned:    "DefaultPostgreSQLSchema with DefaultPostgreSQLOffsetsAdapter. " + tuned,
		contract: log,
	}, {
		key:      "watermill_queue",
		title:    "Watermill-SQL, queue, tuned",
		version:  version,
		rows:     allRows,
		make:     func() system { return &watermillSystem{tuned: true, queue: true} },
		tuned:    "PostgreSQLQueueSchema with PostgreSQLQueueOffsetsAdapter. " + tuned,
		contract: queue,
	}, {
		key:      "watermill_defaults",
		title:    "Watermill-SQL, log, defaults",
		version:  version,
		rows:     []row{rowP50, rowP99},
		make:     func() system { return &watermillSystem{} },
		tuned:    "As the log, with its defaults: PollInterval 1 s, SubscribeBatchSize 100.",
		contract: log,
		poll:     time.Second,
	}}
}

const watermillTopic = "orders"

type watermillSystem struct {
	tuned, queue bool

	at        place
	pool      *pgxpool.Pool
	publisher *wmsql.Publisher
}

func (w *watermillSystem) adapters() (wmsql.SchemaAdapter, wmsql.OffsetsAdapter) {
	size := 0
	if w.tuned {
		size = 1_000
	}
	if w.queue {
		return wmsql.PostgreSQLQueueSchema{SubscribeBatchSize: size}, wmsql.PostgreSQLQueueOffsetsAdapter{DeleteOnAck: true}
	}
	return wmsql.DefaultPostgreSQLSchema{SubscribeBatchSize: size}, wmsql.DefaultPostgreSQLOffsetsAdapter{}
}

func (w *watermillSystem) logger() watermill.LoggerAdapter {
	return watermill.NewSlogLogger(w.at.rig.log)
}

func (w *watermillSystem) open(ctx context.Context, at place) (err error) {
	w.at = at
	if w.pool, err = lab.NewPool(ctx, at.url, sendConns, nil); err != nil {
		return err
	}
	subscriber, err := w.subscriber(w.pool) // it creates the tables, including those of the publisher
	if err != nil {
		return err
	}
	if err := errors.Join(subscriber.SubscribeInitialize(watermillTopic), subscriber.Close()); err != nil {
		return err
	}
	schema, _ := w.adapters()
	w.publisher, err = wmsql.NewPublisher(wmsql.BeginnerFromPgx(w.pool), wmsql.PublisherConfig{SchemaAdapter: schema}, w.logger())
	return err
}

func (w *watermillSystem) subscriber(pool *pgxpool.Pool) (*wmsql.Subscriber, error) {
	config := wmsql.SubscriberConfig{InitializeSchema: true}
	config.SchemaAdapter, config.OffsetsAdapter = w.adapters()
	if w.tuned {
		config.PollInterval = 20 * time.Millisecond
	}
	return wmsql.NewSubscriber(wmsql.BeginnerFromPgx(pool), config, w.logger())
}

func (w *watermillSystem) send(ctx context.Context, o Order) error {
	return w.sendMany(ctx, []Order{o})
}

func (w *watermillSystem) sendMany(ctx context.Context, os []Order) error {
	ms := make([]*message.Message, len(os))
	for i, o := range os {
		ms[i] = message.NewMessageWithContext(ctx, watermill.NewUUID(), encode(o))
	}
	return w.publisher.Publish(watermillTopic, ms...)
}

func (w *watermillSystem) receive(ctx context.Context, in *inbox) (func(context.Context) error, error) {
	pool, err := lab.NewPool(ctx, w.at.url, 4, nil)
	if err != nil {
		return nil, err
	}
	subscriber, err := w.subscriber(pool)
	if err != nil {
		pool.Close()
		return nil, err
	}
	messages, err := subscriber.Subscribe(context.WithoutCancel(ctx), watermillTopic) // the end of ctx would roll back what is in hand
	if err != nil {
		pool.Close()
		return nil, err
	}
	enough := make(chan struct{})
	var handler sync.WaitGroup
	handler.Go(func() {
		for {
			select {
			case <-enough:
				return
			case m, more := <-messages:
				if !more {
					return
				}
				var o Order
				if err := json.Unmarshal(m.Payload, &o); err != nil {
					in.fail(err)
					return
				}
				in.handled(o.ID, time.Now())
				m.Ack()
			}
		}
	})
	return func(ctx context.Context) error {
		defer pool.Close()
		close(enough)
		handler.Wait()
		return errors.Join(w.settled(ctx, in), subscriber.Close())
	}, nil
}

// settled waits, after the last order, until it is acknowledged in the database. A subscriber that is closed before that may
// forget the acknowledgement, and deliver the order again.
func (w *watermillSystem) settled(ctx context.Context, in *inbox) error {
	select {
	case <-in.full:
	default:
		return nil // it was cut off
	}
	for {
		if left, err := w.left(ctx); err != nil || left == 0 {
			return err
		}
		if err := lab.Sleep(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("the last orders were not acknowledged: %w", err)
		}
	}
}

func (w *watermillSystem) left(ctx context.Context) (int, error) {
	if w.queue {
		return count(ctx, w.pool, `SELECT count(*) FROM watermill_orders`)
	}
	return count(ctx, w.pool, `
		SELECT count(*) FROM watermill_orders m WHERE NOT EXISTS (
			SELECT FROM watermill_offsets_orders o
			WHERE (m.transaction_id, m."offset") <= (o.last_processed_transaction_id, o.offset_acked))`)
}

func (w *watermillSystem) close() {
	if w.pool != nil {
		w.pool.Close()
	}
}
