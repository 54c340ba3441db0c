package sqlqwatermill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/sqlq/sqlq/sqlq"
)

// PublisherConfig configures a Publisher. The zero value of each field is its default.
type PublisherConfig struct {
	// ContentType says what payloads are. It is for receivers that use sqlq itself, which decode by it, and for operators, who are shown
	// JSON as text. With application/json, payloads that are not JSON are refused.
	// Default: application/octet-stream. Unit: a media type.
	ContentType string

	// RequireSubscriber makes Publish return ErrNoSubscriber if no queue is subscribed to the topic, and the message would therefore be
	// stored nowhere.
	// Default: off, that is no error.
	RequireSubscriber bool

	// Options returns options of sqlq for a message, such as sqlq.Delay, sqlq.ExpiresIn or sqlq.WithCorrelationID; not sqlq.WithReceipt,
	// which the Publisher uses itself.
	// Default: none.
	Options func(topic string, m *message.Message) []sqlq.SendOption
}

// Publisher publishes messages. It implements message.Publisher of Watermill. It is safe for concurrent use.
type Publisher struct {
	client *sqlq.Client
	config PublisherConfig
	closed atomic.Bool

	mu sync.Mutex // is held while tx is used
	tx sqlq.DBTX  // nil: each call has a transaction of its own
}

// NewPublisher returns a Publisher that sends through the client, which stays the caller's: close the Publisher before it.
func NewPublisher(client *sqlq.Client, config PublisherConfig) (*Publisher, error) {
	if client == nil {
		return nil, errors.New("new publisher: the client is nil: open one with sqlq.Open")
	}
	config.ContentType = cmp.Or(config.ContentType, "application/octet-stream")
	return &Publisher{client: client, config: config}, nil
}

// NewTxPublisher returns a Publisher for one transaction: what it publishes is stored if and when the transaction commits, which is up to
// the caller. The transaction is a pgx.Tx or, through sqlq.SQLTx, a *sql.Tx. An error of the database has aborted it, as with any failed
// statement. Whatever else uses the transaction must wait until Publish has returned.
func NewTxPublisher(client *sqlq.Client, tx sqlq.DBTX, config PublisherConfig) (*Publisher, error) {
	p, err := NewPublisher(client, config)
	if err != nil {
		return nil, err
	}
	if tx == nil {
		return nil, fmt.Errorf("new publisher: %w: the transaction is nil", sqlq.ErrNoTransaction)
	}
	p.tx = tx
	return p, nil
}

// Publish publishes the messages in one transaction, all of them or none, and returns when it has committed. It ends early if the context
// of one of the messages ends; then, and after a lost connection, it is not known whether they are stored.
//
// Errors: ErrClosed, ErrNoTopic, ErrNoSubscriber, and those of [sqlq.Client.SendBatch].
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if p.closed.Load() {
		return fmt.Errorf("publish to %q: %w", topic, ErrClosed)
	}
	if len(messages) == 0 {
		return nil
	}
	if err := p.publish(topic, messages); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	return nil
}

func (p *Publisher) publish(topic string, messages []*message.Message) error {
	eventType, err := EventType(topic)
	if err != nil {
		return err
	}
	batch := make([]sqlq.Envelope, len(messages))
	for i, m := range messages {
		if m == nil {
			return fmt.Errorf("message %d of %d is nil", i+1, len(messages))
		}
		batch[i] = sqlq.Envelope{
			Message: sqlq.Raw{Type: eventType, Body: m.Payload, ContentType: p.config.ContentType},
			Publish: true,
			Options: options(m),
		}
		if p.config.Options != nil {
			batch[i].Options = append(batch[i].Options, p.config.Options(topic, m)...)
		}
	}
	ctx, cancel := contextOf(messages)
	defer cancel()
	receipts, err := p.send(ctx, batch)
	if err != nil {
		return err
	}
	for _, r := range receipts {
		if r.Copies == 0 && p.config.RequireSubscriber {
			return ErrNoSubscriber
		}
	}
	return nil
}

// send stores a batch. Single messages that are published at the same time share a transaction.
func (p *Publisher) send(ctx context.Context, batch []sqlq.Envelope) ([]sqlq.Receipt, error) {
	if p.tx != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.client.SendBatchTx(ctx, p.tx, batch)
	}
	if len(batch) > 1 {
		return p.client.SendBatch(ctx, batch)
	}
	var receipt sqlq.Receipt
	err := p.client.Publish(ctx, batch[0].Message, append(batch[0].Options, sqlq.WithReceipt(&receipt))...)
	return []sqlq.Receipt{receipt}, err
}

// contextOf returns the context of the first message, which ends when that of any message does.
func contextOf(messages []*message.Message) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(messages[0].Context())
	var stops []func() bool
	for _, m := range messages[1:] {
		if other := m.Context(); other.Done() != nil && other.Done() != messages[0].Context().Done() {
			stops = append(stops, context.AfterFunc(other, func() { cancel(context.Cause(other)) }))
		}
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// Close makes later calls of Publish fail with ErrClosed. The client and the transaction stay open.
func (p *Publisher) Close() error {
	p.closed.Store(true)
	return nil
}
