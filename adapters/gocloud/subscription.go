package sqlqpubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/batcher"
	"gocloud.dev/pubsub/driver"

	"github.com/sqlq/sqlq/sqlq"
)

// SubscriptionOptions configure a subscription. The zero value of each field is its default.
type SubscriptionOptions struct {
	// Topics subscribes the queue to these topics, that is event types, when the subscription is opened, and creates the queue if it is
	// missing. It gets what is published from then on, and stays subscribed.
	// Default: none: the queue must exist, or Receive returns an error with the code NotFound.
	Topics []string

	// Retry makes a Nack a failed attempt: the message is retried as the policy says, and then goes to the error table, where an operator
	// may look at it and replay it.
	// Default: nil: a nacked message is delivered again and again, until it is acked.
	Retry *sqlq.RetryPolicy

	// NackDelay is how long a nacked message waits before it is delivered again.
	// Default: 100 ms. Unit: duration. Negative: none. Retry, if it is set, has delays of its own.
	NackDelay time.Duration

	// Deduplicate is a window of time in which the subscription gets messages with the same id (sqlq.WithID) once; see sqlq.Endpoint.
	// Default: off. Unit: duration, at most 31 days.
	Deduplicate time.Duration

	// ReceiveBatcherOptions limit how many messages are received at a time; AckBatcherOptions limit Acks and Nacks.
	// Default: at most 1,000 messages, and no limit.
	ReceiveBatcherOptions, AckBatcherOptions batcher.Options
}

var (
	receiveBatches = &batcher.Options{MaxBatchSize: 1000}
	ackBatches     = &batcher.Options{}
)

// OpenSubscription opens a subscription, which receives from a queue. The client stays the caller's: shut the subscription down before it is
// closed. A Client has one open subscription to a queue at a time. ctx is for the preparation of Topics.
//
// Messages that are received and neither acked nor nacked when the subscription is shut down, or its process ends, are delivered again.
func OpenSubscription(ctx context.Context, client *sqlq.Client, queue string, o *SubscriptionOptions) (*pubsub.Subscription, error) {
	s, err := newSubscription(client, queue, o)
	if err == nil && len(s.options.Topics) > 0 {
		err = client.Prepare(ctx, s.endpoint(1))
	}
	if err != nil {
		return nil, fmt.Errorf("open subscription: %w", err)
	}
	return pubsub.NewSubscription(s, receiveBatches.NewMergedOptions(&s.options.ReceiveBatcherOptions),
		ackBatches.NewMergedOptions(&s.options.AckBatcherOptions)), nil
}

// errNacked is the error of an attempt that was nacked.
var errNacked = errors.New("nacked by the receiver")

// subscription implements driver.Subscription. It runs an endpoint, each of whose handlers waits with its message until that is received, and
// then until it is acked.
type subscription struct {
	base
	queue    string
	options  SubscriptionOptions
	incoming chan *received // unbuffered: what is taken from it is received

	mu      sync.Mutex
	running *sqlq.Running // nil: not started yet
	wanted  int           // messages that calls of ReceiveBatch wait for
	unacked int           // messages that are received
	slots   int           // the endpoint's
}

func newSubscription(client *sqlq.Client, queue string, o *SubscriptionOptions) (*subscription, error) {
	if client == nil {
		return nil, errors.New("the client is nil: open one with sqlq.Open")
	}
	s := &subscription{base: base{client}, queue: queue, incoming: make(chan *received)}
	if o != nil {
		s.options = *o
	}
	if s.options.NackDelay == 0 {
		s.options.NackDelay = 100 * time.Millisecond
	}
	return s, nil
}

// received is a message of a handler that waits.
type received struct {
	*sqlq.Incoming
	subscription *subscription
	end          chan error // gets one result, of the first Ack or Nack
	once         sync.Once
}

// settle ends the handler of a received message with a result. Later calls do nothing.
func (r *received) settle(err error) {
	r.once.Do(func() {
		r.subscription.settled()
		r.end <- err
	})
}

// handle hands a message to whoever receives, and waits for the Ack. If the subscription is closed before, the message is given back, which
// uses up no attempt.
func (s *subscription) handle(ctx context.Context, d *sqlq.Delivery[sqlq.Raw]) error {
	for {
		r := &received{Incoming: d.Incoming, subscription: s, end: make(chan error, 1)}
		select {
		case s.incoming <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
		var err error
		select {
		case err = <-r.end:
		case <-ctx.Done():
			r.settle(ctx.Err())
			err = <-r.end // an Ack, if it came first
		}
		if !errors.Is(err, errNacked) || s.options.Retry != nil {
			return err
		}
		if err := pause(ctx, s.options.NackDelay); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *subscription) endpoint(slots int) sqlq.Endpoint {
	e := sqlq.Endpoint{
		Name:        s.queue,
		Otherwise:   sqlq.HandleRaw("", s.handle),
		Subscribe:   s.options.Topics,
		MustExist:   len(s.options.Topics) == 0,
		Concurrency: slots,
		Deduplicate: s.options.Deduplicate,
	}
	if s.options.Retry != nil {
		e.Retry = *s.options.Retry
	}
	return e
}

const (
	mostSlots   = 10_000               // of an endpoint
	waitForOne  = time.Second          // ReceiveBatch waits for the first message
	waitForMore = 2 * time.Millisecond // and then, for each further one
)

// ReceiveBatch implements driver.Subscription.
func (s *subscription) ReceiveBatch(ctx context.Context, most int) ([]*driver.Message, error) {
	stopped, err := s.want(ctx, most)
	if err != nil {
		return nil, err
	}
	var ms []*driver.Message
	defer func() { s.gotten(most, len(ms)) }()
	wait := time.NewTimer(waitForOne)
	defer wait.Stop()
	for len(ms) < most {
		select {
		case r := <-s.incoming:
			ms = append(ms, r.message())
			wait.Reset(waitForMore)
		case <-wait.C:
			return ms, nil
		case <-ctx.Done():
			return ms, onlyIf(len(ms) == 0, ctx.Err())
		case <-stopped:
			return ms, onlyIf(len(ms) == 0, fmt.Errorf("receive from queue %q: %w", s.queue, sqlq.ErrClosed))
		}
	}
	return ms, nil
}

func onlyIf(is bool, err error) error {
	if is {
		return err
	}
	return nil
}

// want makes room for as many messages, and starts the endpoint if it does not run yet. The channel is closed when it has ended.
func (s *subscription) want(ctx context.Context, n int) (stopped <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := min(s.unacked+s.wanted+n, mostSlots)
	switch {
	case s.running == nil:
		if s.running, err = s.client.Start(ctx, s.endpoint(slots)); err != nil {
			return nil, err
		}
		s.slots = slots
	case slots != s.slots:
		if err := s.running.SetConcurrency(slots); err != nil {
			return nil, err
		}
		s.slots = slots
	}
	s.wanted += n
	return s.running.Done(), nil
}

// gotten ends a call of ReceiveBatch that wanted some messages and got as many.
func (s *subscription) gotten(wanted, got int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted -= wanted
	s.unacked += got
}

// settled counts a message that is acked or nacked.
func (s *subscription) settled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unacked--
}

func (r *received) message() *driver.Message {
	return &driver.Message{
		LoggableID: r.ID.String(),
		Body:       bytes.Clone(r.Body), // if it is nacked, it is delivered again
		Metadata:   metadataOf(r.Headers),
		AckID:      r,
		AsFunc:     asTo(r.Incoming),
	}
}

// SendAcks implements driver.Subscription. The messages are removed with the next commit of the endpoint, a moment later.
func (s *subscription) SendAcks(_ context.Context, ids []driver.AckID) error {
	return settleAll(ids, nil)
}

// CanNack implements driver.Subscription.
func (s *subscription) CanNack() bool { return true }

// SendNacks implements driver.Subscription.
func (s *subscription) SendNacks(_ context.Context, ids []driver.AckID) error {
	return settleAll(ids, errNacked)
}

func settleAll(ids []driver.AckID, err error) error {
	for _, id := range ids {
		id.(*received).settle(err)
	}
	return nil
}

// IsRetryable implements driver.Subscription.
func (s *subscription) IsRetryable(err error) bool { return isRetryable(err) }

// As implements driver.Subscription.
func (s *subscription) As(i any) bool { return asTo(s.client)(i) }

// Close implements driver.Subscription: what was received and not acked is given back.
func (s *subscription) Close() error {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody will ack any more
	err := running.Stop(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil // the stop was cut short, as it should be
	}
	<-running.Done()
	return err
}
