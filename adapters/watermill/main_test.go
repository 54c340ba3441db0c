package sqlqwatermill_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	sqlqwatermill "github.com/sqlq/sqlq/adapters/watermill"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == restartCommand {
		os.Exit(askForRestart(os.Args[2]))
	}
	pgtest.Main(m)
}

// restartCommand is the argument of the test binary with which Watermill's suite restarts the server of TestReconnect.
const restartCommand = "restart-postgres"

// askForRestart asks the test process, which has the server, to restart it.
func askForRestart(url string) (code int) {
	answer, err := http.Post(url, "", nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, answer.Status)
		return 1
	}
	return 0
}

// patience is how long tests wait for what must come.
const patience = 30 * time.Second

// processes are several Clients of one database, as of several processes. Pub/Subs take turns with them.
type processes struct {
	pool    *pgxpool.Pool
	clients []*sqlq.Client
	config  sqlqwatermill.SubscriberConfig
	next    atomic.Int64
}

func newProcesses(t *testing.T, url string, n int) *processes {
	t.Helper()
	p := &processes{pool: newPool(t, url)}
	for range n {
		p.clients = append(p.clients, newClient(t, newPool(t, url)))
	}
	return p
}

func newPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
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

// pubSub is a constructor for Watermill's suite.
func (p *processes) pubSub(t *testing.T) (message.Publisher, message.Subscriber) {
	return p.groupPubSub(t, "")
}

// groupPubSub is a constructor for Watermill's suite.
func (p *processes) groupPubSub(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	client := p.clients[int(p.next.Add(1))%len(p.clients)]
	config := p.config
	config.ConsumerGroup = group
	return newPublisher(t, client, sqlqwatermill.PublisherConfig{}), newSubscriber(t, client, config)
}

func newPublisher(t *testing.T, client *sqlq.Client, config sqlqwatermill.PublisherConfig) *sqlqwatermill.Publisher {
	t.Helper()
	publisher, err := sqlqwatermill.NewPublisher(client, config)
	if err != nil {
		t.Fatal(err)
	}
	return publisher
}

func newSubscriber(t *testing.T, client *sqlq.Client, config sqlqwatermill.SubscriberConfig) *sqlqwatermill.Subscriber {
	t.Helper()
	subscriber, err := sqlqwatermill.NewSubscriber(client, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := subscriber.Close(); err != nil {
			t.Error(err)
		}
	})
	return subscriber
}

// newPubSub returns a Publisher, and a Subscriber of the group, on a database of their own.
func newPubSub(t *testing.T, config sqlqwatermill.SubscriberConfig) (*processes, *sqlqwatermill.Publisher, *sqlqwatermill.Subscriber) {
	t.Helper()
	p := newProcesses(t, pgtest.Database(t), 1)
	return p, newPublisher(t, p.clients[0], sqlqwatermill.PublisherConfig{}), newSubscriber(t, p.clients[0], config)
}

func subscribe(t *testing.T, s message.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	messages, err := s.Subscribe(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func publish(t *testing.T, p message.Publisher, topic string, messages ...*message.Message) {
	t.Helper()
	if err := p.Publish(topic, messages...); err != nil {
		t.Fatal(err)
	}
}

// next waits for a message.
func next(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case m, open := <-messages:
		if !open {
			t.Fatal("the channel is closed")
		}
		return m
	case <-time.After(patience):
		t.Fatal("no message came")
	}
	return nil
}

// awaitClosed waits until a channel is closed, and complains about messages on the way.
func awaitClosed(t *testing.T, messages <-chan *message.Message) {
	t.Helper()
	select {
	case m, open := <-messages:
		if open {
			t.Errorf("message %s came", m.UUID)
		}
	case <-time.After(patience):
		t.Fatal("the channel is not closed")
	}
}

// awaitRows waits until a query returns a number.
func (p *processes) awaitRows(t *testing.T, want int, query string) {
	t.Helper()
	got := -1
	for deadline := time.Now().Add(patience); got != want; {
		if err := p.pool.QueryRow(t.Context(), query).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %d, want %d", query, got, want)
		}
	}
}

// tables sums the messages of a queue, wherever they are.
func inQueue(queue string) string {
	return fmt.Sprintf(`SELECT (SELECT count(*) FROM sqlq."q_%s") + (SELECT count(*) FROM sqlq.leased WHERE queue = '%[1]s')
		+ (SELECT count(*) FROM sqlq.delayed WHERE queue = '%[1]s')`, queue)
}

func uuids(messages ...*message.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, m.UUID)
	}
	slices.Sort(all)
	return all
}
