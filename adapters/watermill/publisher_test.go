package sqlqwatermill_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/stdlib"

	sqlqwatermill "github.com/sqlq/sqlq/adapters/watermill"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// Any UUID, metadata and payload arrive as they were published.
func TestMessagesArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	_, publisher, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	many := message.Metadata{}
	for i := range 150 {
		many[strconv.Itoa(i)] = "x"
	}
	messages := subscribe(t, subscriber, "topic")
	for _, want := range []*message.Message{
		newMessage("", nil, nil),
		newMessage(watermill.NewUUID(), []byte("payload"), message.Metadata{"a": "1", "B.c-d_e": ""}),
		newMessage("01890A5D-AC96-774B-BCCE-B302099A8057", []byte{0, 255, 254}, message.Metadata{"sqlq-key": "mine", "SQLQ-Content-Type": "x"}),
		newMessage("00000000-0000-0000-0000-000000000000", []byte(`{"json":true}`), message.Metadata{"": "empty", strings.Repeat("x", 200): "200", strings.Repeat("y", 201): "201", "with space": "é", "é": "1"}),
		newMessage("any text \x00\xff", []byte("\n"), message.Metadata{"nul": "\x00", "bytes\xff": "\xfe", "a": "plain"}),
		newMessage(watermill.NewULID(), []byte(" "), message.Metadata{"watermill-uuid": "u", "watermill-metadata": "m=1&n=2"}),
		newMessage(watermill.NewShortUUID(), []byte("x"), many),
	} {
		publish(t, publisher, "topic", want)
		got := next(t, messages)
		if got.UUID != want.UUID || !maps.Equal(got.Metadata, want.Metadata) || !slices.Equal(got.Payload, want.Payload) {
			t.Errorf("published %q, %q, %q\nreceived %q, %q, %q", want.UUID, want.Payload, want.Metadata, got.UUID, got.Payload, got.Metadata)
		}
		got.Ack()
	}
}

func newMessage(uuid string, payload []byte, metadata message.Metadata) *message.Message {
	m := message.NewMessage(uuid, payload)
	maps.Copy(m.Metadata, metadata)
	return m
}

// What is published in a transaction, of pgx and of database/sql, is stored if it commits, and only then.
func TestTxPublisher(t *testing.T) {
	t.Parallel()
	p, _, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	db := stdlib.OpenDBFromPool(p.pool)
	defer db.Close()
	messages := subscribe(t, subscriber, "topic")
	for _, commit := range []bool{false, true} {
		tx, err := p.pool.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background())
		sqlTx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer sqlTx.Rollback()
		word := "pgx " + strconv.FormatBool(commit)
		for _, in := range []sqlq.DBTX{tx, sqlq.SQLTx(sqlTx)} {
			publisher, err := sqlqwatermill.NewTxPublisher(p.clients[0], in, sqlqwatermill.PublisherConfig{})
			if err != nil {
				t.Fatal(err)
			}
			publish(t, publisher, "topic", message.NewMessage(word+" 1", nil), message.NewMessage(word+" 2", nil))
			word = "sql " + strconv.FormatBool(commit)
		}
		if commit {
			err = errors.Join(tx.Commit(t.Context()), sqlTx.Commit())
		} else {
			err = errors.Join(tx.Rollback(t.Context()), sqlTx.Rollback())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []*message.Message
	for range 4 {
		m := next(t, messages)
		m.Ack()
		got = append(got, m)
	}
	if want := []string{"pgx true 1", "pgx true 2", "sql true 1", "sql true 2"}; !slices.Equal(uuids(got...), want) {
		t.Errorf("received %q, want %q", uuids(got...), want)
	}
	if _, err := sqlqwatermill.NewTxPublisher(p.clients[0], nil, sqlqwatermill.PublisherConfig{}); !errors.Is(err, sqlq.ErrNoTransaction) {
		t.Errorf("without a transaction: %v", err)
	}
}

// Of the messages of one Publish all are stored, or none.
func TestPublishIsAllOrNothing(t *testing.T) {
	t.Parallel()
	p, _, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	publisher := newPublisher(t, p.clients[0], sqlqwatermill.PublisherConfig{ContentType: "application/json"})
	if err := subscriber.SubscribeInitialize("topic"); err != nil {
		t.Fatal(err)
	}
	good := message.NewMessage("good", []byte("1"))
	if err := publisher.Publish("topic", good, message.NewMessage("bad", []byte("not JSON"))); !errors.Is(err, sqlq.ErrEncode) {
		t.Errorf("a payload that is not JSON: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := publisher.Publish("topic", good, message.NewMessageWithContext(ended, "ended", []byte("2"))); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
	if err := publisher.Publish("topic", good, nil); err == nil {
		t.Error("a nil message was published")
	}
	p.awaitRows(t, 0, inQueue("topic"))
	publish(t, publisher, "topic", good, good.Copy())
	publish(t, publisher, "topic")
	p.awaitRows(t, 2, inQueue("topic"))
}

// A topic to which nobody has subscribed is an error if the Publisher wants a subscriber.
func TestRequireSubscriber(t *testing.T) {
	t.Parallel()
	p, careless, subscriber := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	careful := newPublisher(t, p.clients[0], sqlqwatermill.PublisherConfig{RequireSubscriber: true})
	publish(t, careless, "topic", message.NewMessage("1", nil))
	for n := 1; n <= 2; n++ {
		messages := slices.Repeat([]*message.Message{message.NewMessage("2", nil)}, n)
		if err := careful.Publish("topic", messages...); !errors.Is(err, sqlqwatermill.ErrNoSubscriber) {
			t.Errorf("%d messages without a subscriber: %v", n, err)
		}
	}
	if err := subscriber.SubscribeInitialize("topic"); err != nil {
		t.Fatal(err)
	}
	publish(t, careful, "topic", message.NewMessage("3", nil))
	p.awaitRows(t, 1, inQueue("topic"))
}

// What is closed, or was made of nothing, says so.
func TestPublisherRefuses(t *testing.T) {
	t.Parallel()
	_, publisher, _ := newPubSub(t, sqlqwatermill.SubscriberConfig{})
	if err := publisher.Publish("", message.NewMessage("1", nil)); !errors.Is(err, sqlqwatermill.ErrNoTopic) {
		t.Errorf("the empty topic: %v", err)
	}
	if err := errors.Join(publisher.Close(), publisher.Close()); err != nil {
		t.Error(err)
	}
	if err := publisher.Publish("topic", message.NewMessage("1", nil)); !errors.Is(err, sqlqwatermill.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := sqlqwatermill.NewPublisher(nil, sqlqwatermill.PublisherConfig{}); err == nil {
		t.Error("a Publisher without a client")
	}
	if _, err := sqlqwatermill.NewSubscriber(nil, sqlqwatermill.SubscriberConfig{}); err == nil {
		t.Error("a Subscriber without a client")
	}
}

type placed struct{ Order string }

func (placed) MessageType() string { return "sales.OrderPlaced" }
func (placed) IsEvent()            {}

// Services that use sqlq itself publish to Watermill's topics, and handle what is published there.
func TestServicesOfSqlq(t *testing.T) {
	t.Parallel()
	p := newProcesses(t, pgtest.Database(t), 2)
	subscriber := newSubscriber(t, p.clients[0], sqlqwatermill.SubscriberConfig{ConsumerGroup: "watermill"})
	publisher := newPublisher(t, p.clients[0], sqlqwatermill.PublisherConfig{ContentType: "application/json",
		Options: func(topic string, m *message.Message) []sqlq.SendOption {
			return []sqlq.SendOption{sqlq.WithCorrelationID(topic + " " + m.UUID)}
		}})
	messages := subscribe(t, subscriber, "sales.OrderPlaced")
	handled := make(chan *sqlq.Delivery[placed], 10)
	service := sqlq.Endpoint{Name: "service", Handlers: []sqlq.Handler{
		sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[placed]) error { handled <- d; return nil })}}
	running, err := p.clients[1].Start(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Stop(context.Background())

	id := sqlq.NewID()
	if err := p.clients[1].Publish(t.Context(), placed{"1"}, sqlq.WithID(id), sqlq.WithHeader("shop", "7")); err != nil {
		t.Fatal(err)
	}
	<-handled
	m := next(t, messages)
	if m.UUID != id.String() || string(m.Payload) != `{"Order":"1"}` || !maps.Equal(m.Metadata, message.Metadata{"shop": "7"}) {
		t.Errorf("Watermill received %q, %q, %q", m.UUID, m.Payload, m.Metadata)
	}
	m.Ack()
	id = sqlq.NewID()
	publish(t, publisher, "sales.OrderPlaced", message.NewMessage(id.String(), []byte(`{"Order":"2"}`)))
	d := <-handled
	if d.ID != id || d.Message.Order != "2" || d.CorrelationID != "sales.OrderPlaced "+id.String() {
		t.Errorf("the service received %v of %v, correlation id %q", d.Message, d.ID, d.CorrelationID)
	}
	next(t, messages).Ack()
}
