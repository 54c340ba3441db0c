package sqlqpubsub

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"gocloud.dev/pubsub"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long tests wait for what must come.
const patience = 30 * time.Second

func newPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newClient(t *testing.T, pool *pgxpool.Pool) *sqlq.Client {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	client, err := sqlq.Open(t.Context(), pool, sqlq.Config{Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return client
}

func openTopic(t *testing.T, client *sqlq.Client, messageType string, o *TopicOptions) *pubsub.Topic {
	t.Helper()
	topic, err := OpenTopic(client, messageType, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = topic.Shutdown(context.Background()) }) // an error if the test has shut it down
	return topic
}

func openSubscription(t *testing.T, client *sqlq.Client, queue string, o *SubscriptionOptions) *pubsub.Subscription {
	t.Helper()
	subscription, err := OpenSubscription(t.Context(), client, queue, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = subscription.Shutdown(context.Background()) })
	return subscription
}

func send(t *testing.T, topic *pubsub.Topic, m *pubsub.Message) {
	t.Helper()
	if err := topic.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// receive waits for a message.
func receive(t *testing.T, s *pubsub.Subscription) *pubsub.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := s.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// awaitRows waits until a query returns a number.
func awaitRows(t *testing.T, pool *pgxpool.Pool, want int, query string) {
	t.Helper()
	got := -1
	for deadline := time.Now().Add(patience); got != want; {
		if err := pool.QueryRow(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d, want %d", query, got, want)
		}
	}
}
