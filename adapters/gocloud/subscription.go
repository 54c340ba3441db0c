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

	// NackDelay is how long a nacked message waits before it is delivered again, by any process.
	// Default: 100 ms. Unit: duration. Negative: none.
	NackDelay time.Duration

	// FailOnNack makes a Nack a failed attempt: the message is retried later, as the default sqlq.RetryPolicy says, and after 15 attempts
	// goes to the error table, where an operator may look at it and replay it. NackDelay is not used.
	// Default: off: a nacked message is delivered again and again, until it is acked.
	FailOnNack bool

	// ReceiveBatcherOptions limit how many messages are received at a time; AckBatcherOptions limit Acks and Nacks.
	// Default: at most 1,000 messages.
	ReceiveBatcherOptions, AckBatcherOptions batcher.Options
}

var (
	receiveBatches = &batcher.Options{MaxBatchSize: 1000}
	ackBatches     = &batcher.Options{MaxBatchSize: 1000}
)

// OpenSubscription opens a subscription, which receives from a queue. The client stays the caller's: shut the subscription down before it is
// closed. Subscriptions to the same queue share its messages, whether they are of one process or of several; a Client that runs an
// endpoint of this name cannot receive from it. ctx is for the preparation of Topics.
//
// Messages that are received and neither acked nor nacked when the subscription is shut down, or its process ends, are delivered again.
func OpenSubscription(ctx context.Context, client *sqlq.Client, queue string, o *SubscriptionOptions) (*pubsub.Subscription, error) {
	s, err := newSubscription(client, queue, o)
	if err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("open subscription: %w", err)
	}
	return pubsub.NewSubscription(s, receiveBatches.NewMergedOptions(&s.options.ReceiveBatcherOptions),
		ackBatches.NewMergedOptions(&s.options.AckBatcherOptions)), nil
}

// ErrNacked: the message was nacked. With SubscriptionOptions.FailOnNack it is the error of that attempt, and so what operators see of it.
var ErrNacked = errors.New("nacked by the receiver of a gocloud.dev/pubsub subscription")

// subscription implements driver.Subscription.
type subscription struct {
	base
	queue   string
	options SubscriptionOptions

	mu      sync.Mutex
	unacked map[*sqlq.Received]struct{} // received, and neither acked nor nacked; nil: the subscription is closed
}

func newSubscription(client *sqlq.Client, queue string, o *SubscriptionOptions) (*subscription, error) {
	if client == nil {
		return nil, errors.New("the client is nil: open one with sqlq.Open")
	}
	s := &subscription{base: base{client}, queue: queue, unacked: map[*sqlq.Received]struct{}{}}
	if o != nil {
		s.options = *o
	}
	if s.options.NackDelay == 0 {
		s.options.NackDelay = 100 * time.Millisecond
	}
	return s, nil
}

// prepare subscribes the queue to Topics.
func (s *subscription) prepare(ctx context.Context) error {
	if len(s.options.Topics) == 0 {
		return nil
	}
	return s.client.Prepare(ctx, sqlq.Endpoint{
		Name:      s.queue,
		Subscribe: s.options.Topics,
		Otherwise: sqlq.HandleRaw("", nil), // Prepare calls no handler
	})
}

const (
	// mostReceived is the most that Client.Receive may be asked for.
	mostReceived = 10_000
	// waitFor is how long ReceiveBatch waits for a message.
	waitFor = time.Second
	// closeWithin limits how long Close waits until all is given back. What is not by then goes back when the client closes.
	closeWithin = 10 * time.Second
)

// ReceiveBatch implements driver.Subscription.
func (s *subscription) ReceiveBatch(ctx context.Context, most int) ([]*driver.Message, error) {
	waiting, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	all, err := s.client.Receive(waiting, s.queue, min(most, mostReceived))
	if err != nil {
		if waiting.Err() != nil && ctx.Err() == nil {
			return nil, nil // none came
		}
		return nil, err
	}
	if !s.take(all) {
		return nil, errors.Join(s.giveBack(all), context.Canceled)
	}
	ms := make([]*driver.Message, len(all))
	for i, r := range all {
		ms[i] = messageOf(r)
	}
	return ms, nil
}

// take notes messages that were received; false: the subscription is closed.
func (s *subscription) take(all []*sqlq.Received) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unacked == nil {
		return false
	}
	for _, r := range all {
		s.unacked[r] = struct{}{}
	}
	return true
}

func messageOf(r *sqlq.Received) *driver.Message {
	return &driver.Message{
		LoggableID: r.ID.String(),
		Body:       bytes.Clone(r.Body), // its receiver may write into it
		Metadata:   metadataOf(r.Headers),
		AckID:      r,
		AsFunc:     func(i any) bool { return asTo(r)(i) || asTo(r.Incoming)(i) },
	}
}

// SendAcks implements driver.Subscription. It returns when the removal of the messages is committed.
func (s *subscription) SendAcks(ctx context.Context, ids []driver.AckID) error {
	return s.settle(ids, func(r *sqlq.Received) error { return r.Done(ctx) })
}

// CanNack implements driver.Subscription.
func (s *subscription) CanNack() bool { return true }

// SendNacks implements driver.Subscription. It returns when it is committed that the messages go back.
func (s *subscription) SendNacks(ctx context.Context, ids []driver.AckID) error {
	return s.settle(ids, func(r *sqlq.Received) error {
		if s.options.FailOnNack {
			return r.Fail(ctx, ErrNacked)
		}
		return r.GiveBack(ctx, s.options.NackDelay)
	})
}

func (s *subscription) settle(ids []driver.AckID, end func(*sqlq.Received) error) error {
	all := make([]*sqlq.Received, len(ids))
	s.mu.Lock()
	for i, id := range ids {
		all[i] = id.(*sqlq.Received)
		delete(s.unacked, all[i])
	}
	s.mu.Unlock()
	return settleAll(all, end)
}

// settleAll ends messages together, so that they share statements. It is no error if the end of a message was asked for before. Nor is it if
// the message was lost before its end was committed, with its connection for example: then it is delivered again.
func settleAll(all []*sqlq.Received, end func(*sqlq.Received) error) error {
	errs := make([]error, len(all))
	var ends sync.WaitGroup
	for i, r := range all {
		ends.Go(func() {
			if err := end(r); !errors.Is(err, sqlq.ErrSettled) && !errors.Is(err, sqlq.ErrLeaseLost) {
				errs[i] = err
			}
		})
	}
	ends.Wait()
	return errors.Join(errs...)
}

// IsRetryable implements driver.Subscription.
func (s *subscription) IsRetryable(err error) bool { return isRetryable(err) }

// As implements driver.Subscription.
func (s *subscription) As(i any) bool { return asTo(s.client)(i) }

// Close implements driver.Subscription: what was received and neither acked nor nacked is given back.
func (s *subscription) Close() error {
	s.mu.Lock()
	all := make([]*sqlq.Received, 0, len(s.unacked))
	for r := range s.unacked {
		all = append(all, r)
	}
	s.unacked = nil
	s.mu.Unlock()
	return s.giveBack(all)
}

func (s *subscription) giveBack(all []*sqlq.Received) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return settleAll(all, func(r *sqlq.Received) error { return r.GiveBack(ctx, 0) })
}
