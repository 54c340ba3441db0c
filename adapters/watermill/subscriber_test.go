package sqlqwatermill_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	sqlqwatermill "github.com/sqlq/sqlq/adapters/watermill"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// A nacked message comes again, as often as it is nacked, with a payload that its handler has not spoilt, and before the next one.
func TestNackedMessageComesAgain(t *testing.T) {
	t.Parallel()
	p, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{NackDelay: -1})
	messages := subscribe(t, subscriber, "topic")
	publish(t, publisher, "topic", message.NewMessage("first", []byte("payload")))
	for range 100 {
		m := next(t, messages)
		if m.UUID != "first" || string(m.Payload) != "payload" {
			t.Fatalf("received %q, %q", m.UUID, m.Payload)
		}
		clear(m.Payload)
		m.Nack()
		<-m.Context().Done()
	}
	next(t, messages).Ack()
	p.awaitRows(t, 0, inQueue("topic"))
	p.awaitRows(t, 0, `SELECT count(*) FROM sqlq.error`)
}

// With a retry policy a Nack is a failed attempt, and the message goes to the error table.
func TestRetryEndsInErrorTable(t *testing.T) {
	t.Parallel()
	p, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{Retry: &sqlq.RetryPolicy{Immediate: 1, Delays: []time.Duration{time.Millisecond}}})
	messages := subscribe(t, subscriber, "topic")
	publish(t, publisher, "topic", message.NewMessage("poison", nil))
	for range 4 {
		next(t, messages).Nack()
	}
	p.awaitRows(t, 1, `SELECT count(*) FROM sqlq.error WHERE queue = 'topic' AND attempts = 4 AND message LIKE 'nacked%'`)
	p.awaitRows(t, 0, inQueue("topic"))
}

// Each group gets every message, and of the Subscribers of a group one.
func TestGroups(t *testing.T) {
	t.Parallel()
	p := newProcesses(t, pgtest.Database(t), 2)
	publisher := newPublisher(t, p.clients[0], sqlqwatermill.PublisherConfig{})
	var groups [2][]<-chan *message.Message
	for g, name := range []string{"billing", "Versand für alle"} {
		for _, client := range []*sqlq.Client{p.clients[0], p.clients[0], p.clients[1]} {
			s := newSubscriber(t, client, sqlqwatermill.SubscriberConfig{ConsumerGroup: name})
			groups[g] = append(groups[g], subscribe(t, s, "topic"))
		}
	}
	var sent []*message.Message
	for range 30 {
		sent = append(sent, message.NewMessage(watermill.NewUUID(), nil))
	}
	publish(t, publisher, "topic", sent...)
	for _, members := range groups {
		var got []*message.Message
		for range sent {
			select {
			case m := <-members[0]:
				got = append(got, m)
			case m := <-members[1]:
				got = append(got, m)
			case m := <-members[2]:
				got = append(got, m)
			case <-time.After(patience):
				t.Fatalf("%d of %d messages came", len(got), len(sent))
			}
			got[len(got)-1].Ack()
		}
		if !slices.Equal(uuids(got...), uuids(sent...)) {
			t.Errorf("received %q, want %q", uuids(got...), uuids(sent...))
		}
	}
}

// Subscribers that share a Client share an endpoint: what one had and did not ack when it closed, another gets at once, and the endpoint goes
// on until the last one has closed.
func TestSubscribersShareAnEndpoint(t *testing.T) {
	t.Parallel()
	p, publisher, first := newPubSub(t, sqlqwatermill.SubscriberConfig{DrainTimeout: -1})
	messages := subscribe(t, first, "topic")
	publish(t, publisher, "topic", message.NewMessage("1", nil))
	if m := next(t, messages); m.UUID != "1" {
		t.Errorf("the first received %q", m.UUID)
	}
	second := newSubscriber(t, p.clients[0], sqlqwatermill.SubscriberConfig{})
	others := subscribe(t, second, "topic")
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	awaitClosed(t, messages)
	m := next(t, others)
	if m.UUID != "1" {
		t.Errorf("the second received %q", m.UUID)
	}
	m.Ack()
	publish(t, publisher, "topic", message.NewMessage("2", nil))
	next(t, others).Ack()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	third := subscribe(t, newSubscriber(t, p.clients[0], sqlqwatermill.SubscriberConfig{}), "topic")
	publish(t, publisher, "topic", message.NewMessage("3", nil))
	if m := next(t, third); m.UUID != "3" {
		t.Errorf("the third received %q", m.UUID)
	} else {
		m.Ack()
	}
}

// Subscribers that share an endpoint need the same settings of it.
func TestOtherSettingsAreRefused(t *testing.T) {
	t.Parallel()
	p, _, first := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	subscribe(t, first, "topic")
	for _, config := range []sqlqwatermill.SubscriberConfig{{Retry: &sqlq.RetryPolicy{}}, {Deduplicate: time.Minute}} {
		other := newSubscriber(t, p.clients[0], config)
		if _, err := other.Subscribe(t.Context(), "topic"); !errors.Is(err, sqlqwatermill.ErrOtherSettings) {
			t.Errorf("other settings: %v", err)
		}
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	subscribe(t, newSubscriber(t, p.clients[0], sqlqwatermill.SubscriberConfig{Deduplicate: time.Minute}), "topic")
}

// Messages that are not acked when a Subscriber closes are delivered to the next one, without an attempt.
func TestCloseGivesBack(t *testing.T) {
	t.Parallel()
	p, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{Concurrency: 3, DrainTimeout: -1})
	messages := subscribe(t, subscriber, "topic")
	for _, uuid := range []string{"1", "2", "3", "4", "5"} {
		publish(t, publisher, "topic", message.NewMessage(uuid, nil))
	}
	held := next(t, messages)
	if err := subscriber.Close(); err != nil {
		t.Error(err)
	}
	<-held.Context().Done()
	awaitClosed(t, messages)
	p.awaitRows(t, 5, `SELECT count(*) FROM sqlq.q_topic WHERE attempt = 0`)

	again := subscribe(t, newSubscriber(t, p.clients[0], sqlqwatermill.SubscriberConfig{}), "topic")
	var got []*message.Message
	for range 5 {
		m := next(t, again)
		m.Ack()
		got = append(got, m)
	}
	if want := []string{"1", "2", "3", "4", "5"}; !slices.Equal(uuids(got...), want) {
		t.Errorf("received %q, want %q", uuids(got...), want)
	}
}

// Close waits for the Ack of a message that is handed out.
func TestCloseWaitsForAck(t *testing.T) {
	t.Parallel()
	p, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{DrainTimeout: patience})
	messages := subscribe(t, subscriber, "topic")
	publish(t, publisher, "topic", message.NewMessage("1", nil))
	m := next(t, messages)
	closed := make(chan error)
	go func() { closed <- subscriber.Close() }()
	awaitClosed(t, messages) // so no other message comes
	select {
	case <-closed:
		t.Error("Close did not wait")
	case <-m.Context().Done():
		t.Error("Close cancelled the context")
	default:
	}
	m.Ack()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	p.awaitRows(t, 0, inQueue("topic"))
	if _, err := subscriber.Subscribe(t.Context(), "topic"); !errors.Is(err, sqlqwatermill.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// The end of the context ends a subscription, and of the Client all.
func TestSubscriptionsEnd(t *testing.T) {
	t.Parallel()
	p, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	first, err := subscriber.Subscribe(ctx, "topic")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	awaitClosed(t, first)
	if _, err := subscriber.Subscribe(ctx, "topic"); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
	second := subscribe(t, subscriber, "topic")
	publish(t, publisher, "topic", message.NewMessage("1", nil))
	next(t, second).Ack()
	closing, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.clients[0].Close(closing); err != nil {
		t.Error(err)
	}
	awaitClosed(t, second)
	if _, err := subscriber.Subscribe(t.Context(), "topic"); !errors.Is(err, sqlq.ErrClosed) {
		t.Errorf("after the end of the Client: %v", err)
	}
	if err := subscriber.SubscribeInitialize("topic"); !errors.Is(err, sqlq.ErrClosed) {
		t.Errorf("after the end of the Client: %v", err)
	}
}

// With a window a group gets a UUID once.
func TestDeduplicate(t *testing.T) {
	t.Parallel()
	p, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{Deduplicate: time.Minute})
	messages := subscribe(t, subscriber, "topic")
	m := message.NewMessage(watermill.NewUUID(), nil)
	publish(t, publisher, "topic", m)
	next(t, messages).Ack()
	p.awaitRows(t, 0, inQueue("topic"))
	publish(t, publisher, "topic", m)
	p.awaitRows(t, 0, inQueue("topic"))
	if err := subscriber.Close(); err != nil {
		t.Error(err)
	}
	awaitClosed(t, messages)
}

// Settings that cannot be are refused before anything is subscribed.
func TestSubscriberRefuses(t *testing.T) {
	t.Parallel()
	p, _, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	for _, concurrency := range []int{-1, 10_001} {
		if _, err := sqlqwatermill.NewSubscriber(p.clients[0], sqlqwatermill.SubscriberConfig{Concurrency: concurrency}); err == nil {
			t.Errorf("a Concurrency of %d is accepted", concurrency)
		}
	}
	if _, err := subscriber.Subscribe(t.Context(), ""); !errors.Is(err, sqlqwatermill.ErrNoTopic) {
		t.Errorf("the empty topic: %v", err)
	}
	if err := subscriber.SubscribeInitialize(""); !errors.Is(err, sqlqwatermill.ErrNoTopic) {
		t.Errorf("the empty topic: %v", err)
	}
	window := newSubscriber(t, p.clients[0], sqlqwatermill.SubscriberConfig{Deduplicate: -time.Minute})
	if _, err := window.Subscribe(t.Context(), "topic"); !errors.Is(err, sqlq.ErrInvalidEndpoint) {
		t.Errorf("a negative window: %v", err)
	}
}
