package sqlqpubsub

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"testing"

	"gocloud.dev/gcerrors"
	"gocloud.dev/pubsub"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

const left = `SELECT (SELECT count(*) FROM sqlq.q_queue) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed)`

// A nacked message comes again, as often as it is nacked, with a body that its receiver has not spoilt; an acked one is removed.
func TestNackedMessageComesAgain(t *testing.T) {
	t.Parallel()
	pool := newPool(t, pgtest.Database(t))
	client := newClient(t, pool)
	s := openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"topic"}, NackDelay: -1})
	send(t, openTopic(t, client, "topic", nil), &pubsub.Message{Body: []byte("body")})
	for range 20 {
		m := receive(t, s)
		if string(m.Body) != "body" {
			t.Fatalf("received %q", m.Body)
		}
		clear(m.Body)
		m.Nack()
	}
	receive(t, s).Ack()
	awaitRows(t, pool, 0, left)
	awaitRows(t, pool, 0, `SELECT count(*) FROM sqlq.error`)
}

// With FailOnNack a Nack is a failed attempt.
func TestFailOnNack(t *testing.T) {
	t.Parallel()
	pool := newPool(t, pgtest.Database(t))
	client := newClient(t, pool)
	s := openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"topic"}, FailOnNack: true})
	send(t, openTopic(t, client, "topic", nil), &pubsub.Message{})
	for attempt := 1; attempt <= 3; attempt++ {
		m := receive(t, s)
		var in *sqlq.Incoming
		if !m.As(&in) || in.Attempt != attempt {
			t.Errorf("attempt %d, want %d", in.Attempt, attempt)
		}
		m.Nack()
	}
	awaitRows(t, pool, 1, `SELECT count(*) FROM sqlq.delayed WHERE queue = 'queue' AND attempt = 3 AND error::text LIKE '%nacked by%'`)
}

// What was received and not acked when a subscription is shut down is delivered to the next one, and what was acked is not.
func TestShutdownGivesBack(t *testing.T) {
	t.Parallel()
	pool := newPool(t, pgtest.Database(t))
	client := newClient(t, pool)
	s := openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"topic"}})
	topic := openTopic(t, client, "topic", nil)
	bodies := map[string]bool{}
	for i := range 20 {
		send(t, topic, &pubsub.Message{Body: []byte(strconv.Itoa(i))})
		bodies[strconv.Itoa(i)] = true
	}
	for range 5 {
		m := receive(t, s)
		m.Ack()
		delete(bodies, string(m.Body))
	}
	kept := receive(t, s)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	awaitRows(t, pool, 15, `SELECT count(*) FROM sqlq.q_queue WHERE attempt = 0`)
	s = openSubscription(t, client, "queue", nil)
	for range 15 {
		m := receive(t, s)
		m.Ack()
		if !bodies[string(m.Body)] {
			t.Errorf("message %q came again", m.Body)
		}
		delete(bodies, string(m.Body))
	}
	if len(bodies) > 0 {
		t.Errorf("%v did not come", bodies)
	}
	awaitRows(t, pool, 0, left)
	kept.Ack() // too late, and without effect
}

// Two processes share the messages of a subscription, and one takes no more than it receives.
func TestProcessesShareASubscription(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := newPool(t, url)
	one := openSubscription(t, newClient(t, pool), "queue", &SubscriptionOptions{Topics: []string{"topic"}})
	client := newClient(t, newPool(t, url))
	topic := openTopic(t, client, "topic", nil)
	for i := range 10 {
		send(t, topic, &pubsub.Message{Body: []byte(strconv.Itoa(i))})
	}
	first := receive(t, one)
	other := openSubscription(t, client, "queue", nil)
	second := receive(t, other)
	if string(first.Body) == string(second.Body) {
		t.Errorf("both received %q", first.Body)
	}
	first.Ack()
	second.Ack()
	awaitRows(t, pool, 8, left)
}

// Several subscriptions of a process to one queue share its messages.
func TestSubscriptionsOfAProcessShareAQueue(t *testing.T) {
	t.Parallel()
	client := newClient(t, newPool(t, pgtest.Database(t)))
	one := openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"topic"}})
	other := openSubscription(t, client, "queue", nil)
	topic := openTopic(t, client, "topic", nil)
	for range 10 { // enough for both: they fetch ahead
		send(t, topic, &pubsub.Message{})
	}
	first, second := receive(t, one), receive(t, other)
	if first.LoggableID == second.LoggableID {
		t.Errorf("both received %s", first.LoggableID)
	}
	first.Ack()
	second.Ack()
}

type placed struct{ Order string }

func (placed) MessageType() string { return "sales.OrderPlaced" }
func (placed) IsEvent()            {}

// Services that use sqlq itself publish to topics and handle what is sent to them.
func TestServicesOfSqlq(t *testing.T) {
	t.Parallel()
	client := newClient(t, newPool(t, pgtest.Database(t)))
	s := openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"sales.OrderPlaced"}})
	handled := make(chan *sqlq.Delivery[placed], 10)
	running, err := client.Start(t.Context(), sqlq.Endpoint{Name: "service", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[placed]) error { handled <- d; return nil })}})
	if err != nil {
		t.Fatal(err)
	}
	defer running.Stop(context.Background())
	if err := client.Publish(t.Context(), placed{"1"}, sqlq.WithHeader("shop", "7"), sqlq.WithCorrelationID("c")); err != nil {
		t.Fatal(err)
	}
	<-handled
	m := receive(t, s)
	if string(m.Body) != `{"Order":"1"}` || !maps.Equal(m.Metadata, map[string]string{"shop": "7"}) {
		t.Errorf("the subscription received %q, %q", m.Body, m.Metadata)
	}
	m.Ack()
	topic := openTopic(t, client, "sales.OrderPlaced", &TopicOptions{ContentType: "application/json"})
	send(t, topic, &pubsub.Message{Body: []byte(`{"Order":"2"}`), Metadata: map[string]string{"shop": "8"}})
	if d := <-handled; d.Message.Order != "2" || d.Headers["shop"] != "8" {
		t.Errorf("the service received %v, %q", d.Message, d.Headers)
	}
	receive(t, s).Ack()
}

// Metadata of any number and form arrives as it was sent. (The suite has many strings, but not those of sqlq.)
func TestMetadata(t *testing.T) {
	t.Parallel()
	client := newClient(t, newPool(t, pgtest.Database(t)))
	s := openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"topic"}})
	topic := openTopic(t, client, "topic", nil)
	many := map[string]string{}
	for i := range 200 {
		many[strconv.Itoa(i)] = "x"
	}
	for _, metadata := range []map[string]string{
		many, {"": "empty", strings.Repeat("x", 200): "200", strings.Repeat("y", 201): "201"}, {"sqlq-key": "mine", "SQLQ-x": "1", "a": "b"}, {headerMetadata: "a=b&c"}, {"nul\x00": "\x00"},
	} {
		send(t, topic, &pubsub.Message{Metadata: metadata})
		m := receive(t, s)
		m.Ack()
		if !maps.Equal(m.Metadata, metadata) {
			t.Errorf("sent %q, received %q", metadata, m.Metadata)
		}
	}
}

// What the library refuses has the code that programs expect.
func TestErrorCodes(t *testing.T) {
	t.Parallel()
	pool := newPool(t, pgtest.Database(t))
	client := newClient(t, pool)
	openSubscription(t, client, "queue", &SubscriptionOptions{Topics: []string{"topic"}})
	big := make([]byte, 17<<20)
	for _, c := range []struct {
		what    string
		topic   string
		options TopicOptions
		body    []byte
		want    gcerrors.ErrorCode
	}{
		{"a topic without a subscriber", "other", TopicOptions{}, nil, gcerrors.NotFound},
		{"the same, allowed", "other", TopicOptions{AllowNoSubscriber: true}, nil, gcerrors.OK},
		{"a queue that does not exist", "topic", TopicOptions{Queue: "missing"}, nil, gcerrors.NotFound},
		{"a type that is none", "not a type", TopicOptions{}, nil, gcerrors.InvalidArgument},
		{"a queue that is none", "topic", TopicOptions{Queue: "a b"}, nil, gcerrors.InvalidArgument},
		{"a body that is not JSON", "topic", TopicOptions{ContentType: "application/json"}, []byte("{"), gcerrors.InvalidArgument},
		{"a body that is too large", "topic", TopicOptions{}, big, gcerrors.InvalidArgument},
	} {
		err := openTopic(t, client, c.topic, &c.options).Send(t.Context(), &pubsub.Message{Body: c.body})
		if code := gcerrors.Code(err); code != c.want {
			t.Errorf("%s: code %v, want %v: %v", c.what, code, c.want, err)
		}
	}
	if _, err := OpenTopic(nil, "topic", nil); err == nil {
		t.Error("a topic without a client")
	}
	if _, err := OpenSubscription(t.Context(), nil, "queue", nil); err == nil {
		t.Error("a subscription without a client")
	}
	if _, err := OpenSubscription(t.Context(), client, "queue", &SubscriptionOptions{Topics: []string{"no type"}}); !errors.Is(err, sqlq.ErrInvalidName) {
		t.Errorf("a topic that is not a type: %v", err)
	}
	_, err := openSubscription(t, client, "a b", nil).Receive(t.Context())
	if gcerrors.Code(err) != gcerrors.InvalidArgument {
		t.Errorf("a queue that is none: %v", err)
	}
}
