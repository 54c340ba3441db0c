package sqlqwatermill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/sqlq/sqlq/sqlq"
)

// SubscriberConfig configures a Subscriber. The zero value of each field is its default.
type SubscriberConfig struct {
	// ConsumerGroup names those who share the messages of a topic: each group gets every message, and one Subscriber of the group handles
	// it. Subscribers that share their Client, and others in other processes, are in one group if they have the same name.
	// Default: "", which is a group too: it has the queue that is named after the topic. Unit: any text.
	ConsumerGroup string

	// Concurrency is how many messages each Subscribe hands out before one of them is acked or nacked.
	// Default: 1: the next message comes after the Ack of the one before. Unit: messages, up to 10,000 for all Subscribers of a group that
	// share a Client.
	Concurrency int

	// NackDelay is how long a nacked message waits before it is handed out again by this process. Meanwhile nothing is written.
	// Default: 10 ms. Unit: duration. Negative: none. Retry, if it is set, has delays of its own.
	NackDelay time.Duration

	// Retry makes a Nack a failed attempt: the message is retried as the policy says, by any process of the group, and then goes to the
	// error table, where an operator may look at it and replay it.
	// Default: nil: a nacked message is handed out again and again, until it is acked; the error table gets only messages that kill
	// their process. Do not change it once the Subscriber is made.
	Retry *sqlq.RetryPolicy

	// Deduplicate is a window of time in which the group gets messages with the same UUID once. The UUIDs must have the form of those that
	// Watermill makes by itself; see sqlq.Endpoint.
	// Default: off. Unit: duration, at most 31 days.
	Deduplicate time.Duration

	// DrainTimeout is how long Close, and a Subscribe whose context has ended, wait for messages that are handed out to be acked. Then their
	// contexts are cancelled, and they are delivered again, to another Subscriber or later.
	// Default: 5 s. Negative: they are not waited for.
	DrainTimeout time.Duration

	// Logger is told what goes wrong when a subscription ends.
	// Default: none.
	Logger watermill.LoggerAdapter
}

func (c SubscriberConfig) withDefaults() SubscriberConfig {
	if c.Concurrency == 0 {
		c.Concurrency = 1
	}
	if c.NackDelay == 0 {
		c.NackDelay = 10 * time.Millisecond
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
	return c
}

// Subscriber receives messages. It implements message.Subscriber and message.SubscribeInitializer of Watermill. It is safe for concurrent
// use.
type Subscriber struct {
	client  *sqlq.Client
	config  SubscriberConfig
	closing chan struct{}
	ended   sync.WaitGroup // the subscriptions; added to with mu held, before closing is closed

	mu     sync.Mutex
	closed bool
}

// NewSubscriber returns a Subscriber that receives through the client, which stays the caller's: close the Subscriber before it. All
// Subscribers of a Client share its connections; see sqlq.Config.ReceiveConnections.
func NewSubscriber(client *sqlq.Client, config SubscriberConfig) (*Subscriber, error) {
	if client == nil {
		return nil, errors.New("new subscriber: the client is nil: open one with sqlq.Open")
	}
	config = config.withDefaults()
	if config.Concurrency < 0 || config.Concurrency > 10_000 {
		return nil, fmt.Errorf("new subscriber: its Concurrency is %d: it must be from 1 to 10,000", config.Concurrency)
	}
	return &Subscriber{client: client, config: config, closing: make(chan struct{})}, nil
}

// initializeWithin bounds SubscribeInitialize, which has no context.
const initializeWithin = 30 * time.Second

// SubscribeInitialize creates the queue of the group for the topic, if it is missing, and subscribes it: it gets what is published from now
// on, also while nobody receives. Subscribe does so too.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	o, err := s.outlet(topic)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), initializeWithin)
		defer cancel()
		err = s.client.Prepare(ctx, o.endpoint(s.config.Concurrency))
	}
	if err != nil {
		return fmt.Errorf("initialize the subscription to %q: %w", topic, err)
	}
	return nil
}

// outlet returns what hands out the messages of the topic to the group.
func (s *Subscriber) outlet(topic string) (*outlet, error) {
	eventType, err := EventType(topic)
	if err != nil {
		return nil, err
	}
	queue, err := QueueName(s.config.ConsumerGroup, topic)
	if err != nil {
		return nil, err
	}
	return newOutlet(s.client, queue, eventType, settings{retry: s.config.Retry, deduplicate: s.config.Deduplicate}), nil
}

// Subscribe returns a channel with the messages of the topic. It is closed when ctx ends, or the Subscriber or the Client is closed. The
// contexts of the messages are made of ctx, and end when the message is acked or nacked, or given back. Of several subscriptions
// of a group each message is in one.
//
// Errors: ErrClosed, ErrNoTopic, ErrOtherSettings, and those of [sqlq.Client.Start].
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	sub, err := s.subscribe(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	return sub.out, nil
}

func (s *Subscriber) subscribe(ctx context.Context, topic string) (*subscription, error) {
	wanted, err := s.outlet(topic)
	if err != nil {
		return nil, err
	}
	if !s.begin() {
		return nil, ErrClosed
	}
	o, stopped, err := join(ctx, wanted, s.config.Concurrency)
	if err != nil {
		s.ended.Done()
		return nil, err
	}
	sub := newSubscription(ctx, o, s.config)
	go func() {
		defer s.ended.Done()
		if err := sub.run(s.closing, stopped); err != nil {
			s.config.Logger.Error("sqlqwatermill: end a subscription", err, watermill.LogFields{"topic": topic, "queue": o.queue})
		}
	}()
	return sub, nil
}

// begin counts one more subscription, unless the Subscriber is closed.
func (s *Subscriber) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.ended.Add(1)
	}
	return !s.closed
}

// Close ends all subscriptions, and returns when they have ended: when messages that were handed out are acked, or after DrainTimeout given
// back, and the channels are closed. The queues stay subscribed.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.ended.Wait()
	return nil
}
