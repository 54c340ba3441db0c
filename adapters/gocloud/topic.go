package sqlqpubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"gocloud.dev/gcerrors"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/batcher"
	"gocloud.dev/pubsub/driver"

	"github.com/sqlq/sqlq/sqlq"
)

// TopicOptions configure a topic. The zero value of each field is its default.
type TopicOptions struct {
	// Queue sends the messages as commands to this queue, instead of publishing them as events to the queues that are subscribed. It
	// must exist, or Send returns an error with the code NotFound.
	// Default: none, they are published.
	Queue string

	// ContentType says what bodies are. It is for receivers that use sqlq itself, which decode by it, and for operators, who are shown JSON
	// as text. With application/json, bodies that are not JSON are refused.
	// Default: application/octet-stream. Unit: a media type.
	ContentType string

	// AllowNoSubscriber makes it no error to publish while no queue is subscribed. Such a message is stored nowhere.
	// Default: off, Send returns an error with the code NotFound.
	AllowNoSubscriber bool

	// BatcherOptions limit how many messages share a transaction, and how many transactions there are at a time.
	// Default: at most 1,000 messages, one transaction at a time. What is sent meanwhile shares the next one.
	BatcherOptions batcher.Options
}

var sendBatches = &batcher.Options{MaxBatchSize: 1000}

// ErrNoSubscriber: no queue is subscribed to the topic, so the message was not stored. Its code is NotFound.
var ErrNoSubscriber = errors.New("no queue is subscribed to the topic")

// OpenTopic opens a topic: messages of this type, published as events or, with TopicOptions.Queue, sent as commands. The client stays the
// caller's: shut the topic down before it is closed. Whether the type is a valid one is found out by Send.
func OpenTopic(client *sqlq.Client, messageType string, o *TopicOptions) (*pubsub.Topic, error) {
	t, err := newTopic(client, messageType, o)
	if err != nil {
		return nil, fmt.Errorf("open topic: %w", err)
	}
	return pubsub.NewTopic(t, sendBatches.NewMergedOptions(&t.options.BatcherOptions)), nil
}

// topic implements driver.Topic.
type topic struct {
	base
	messageType string
	options     TopicOptions
}

func newTopic(client *sqlq.Client, messageType string, o *TopicOptions) (*topic, error) {
	if client == nil {
		return nil, errors.New("the client is nil: open one with sqlq.Open")
	}
	t := &topic{base: base{client}, messageType: messageType}
	if o != nil {
		t.options = *o
	}
	t.options.ContentType = cmp.Or(t.options.ContentType, "application/octet-stream")
	return t, nil
}

// SendBatch implements driver.Topic: all messages are stored, or none.
func (t *topic) SendBatch(ctx context.Context, ms []*driver.Message) error {
	batch := make([]sqlq.Envelope, len(ms))
	for i, m := range ms {
		e := &batch[i]
		e.Message = sqlq.Raw{Type: t.messageType, Body: m.Body, ContentType: t.options.ContentType}
		e.Options = headerOptions(m.Metadata)
		if t.options.Queue != "" {
			e.Options = append(e.Options, sqlq.To(t.options.Queue))
		} else {
			e.Publish = true
		}
		if m.BeforeSend != nil {
			if err := m.BeforeSend(asTo(e)); err != nil {
				return err
			}
		}
	}
	receipts, err := t.client.SendBatch(ctx, batch)
	if err != nil {
		return err
	}
	if !t.options.AllowNoSubscriber && isUnheard(receipts) {
		return fmt.Errorf("send to topic %q: %w", t.messageType, ErrNoSubscriber)
	}
	for i, m := range ms {
		if m.AfterSend != nil {
			if err := m.AfterSend(asTo(receipts[i])); err != nil {
				return err
			}
		}
	}
	return nil
}

// isUnheard reports whether nobody gets any of the messages. Those that middleware has dropped do not count.
func isUnheard(receipts []sqlq.Receipt) bool {
	sent, copies := 0, 0
	for _, r := range receipts {
		if r.ID != (sqlq.ID{}) {
			sent++
		}
		copies += r.Copies
	}
	return sent > 0 && copies == 0
}

// IsRetryable implements driver.Topic.
func (t *topic) IsRetryable(err error) bool { return isRetryable(err) }

// As implements driver.Topic.
func (t *topic) As(i any) bool { return asTo(t.client)(i) }

// Close implements driver.Topic.
func (t *topic) Close() error { return nil }

// base has what topics and subscriptions share.
type base struct{ client *sqlq.Client }

// ErrorAs implements driver.Topic and driver.Subscription.
func (base) ErrorAs(err error, i any) bool { return errors.As(err, i) }

// ErrorCode implements driver.Topic and driver.Subscription.
func (base) ErrorCode(err error) gcerrors.ErrorCode { return errorCode(err) }

// asTo returns a function that sets what its argument points to, if that is of type T.
func asTo[T any](value T) func(any) bool {
	return func(i any) bool {
		p, is := i.(*T)
		if is && p != nil {
			*p = value
		}
		return is && p != nil
	}
}
