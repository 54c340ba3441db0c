package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// purgeBatch is how many messages one transaction of Purge removes.
const purgeBatch = 1000

// Queue is what waits in a queue and around it.
type Queue struct {
	Name    string
	Ready   Count // in the queue's table, those included that a receiver holds at this moment
	Delayed Count // deferred by their sender, or waiting for their next attempt
	Leased  Count // slow ones, in the hands of an instance
	Failed  Count // in the error table, archived ones left out

	// OldestAt is when the oldest ready message was sent, among the first CountLimit in order of arrival, and OldestAge
	// how long ago that was by the clock of the database; nil: none is ready.
	OldestAt  *time.Time
	OldestAge *time.Duration
}

// QueueDetail is a queue with what else is known of it.
type QueueDetail struct {
	Queue
	CreatedAt  time.Time
	Subscribed []string // event types
	Instances  int      // running processes that handle its messages
}

// CreateQueue makes a queue; false: it was there already.
func (o *Ops) CreateQueue(ctx context.Context, name string) (made bool, err error) {
	made, err = o.store.CreateQueue(ctx, o.pool, name)
	if err != nil {
		return false, fmt.Errorf("create queue %q: %w", name, err)
	}
	return made, nil
}

// ListQueues returns all queues by name, with their counts. It reads a bounded number of rows, however many messages wait.
func (o *Ops) ListQueues(ctx context.Context) ([]Queue, error) {
	// A queue may be dropped between the list and the counts; then both are made again.
	for tries := 3; ; tries-- {
		names, err := o.store.QueueNames(ctx, o.pool)
		if err != nil {
			return nil, fmt.Errorf("list queues: %w", err)
		}
		queues, err := o.count(ctx, names)
		if err == nil {
			return queues, nil
		}
		if tries == 1 || sqlState(err) != undefinedTable {
			return nil, err
		}
	}
}

// QueueNames returns the names of all queues, in their order.
func (o *Ops) QueueNames(ctx context.Context) ([]string, error) {
	names, err := o.store.QueueNames(ctx, o.pool)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return names, nil
}

// TypeNames returns the message types that are known to the database, in their order: those that are subscribed, and those
// of failed messages. Queues are not searched.
func (o *Ops) TypeNames(ctx context.Context) ([]string, error) {
	names, err := o.store.TypeNames(ctx, o.pool)
	if err != nil {
		return nil, fmt.Errorf("list message types: %w", err)
	}
	return names, nil
}

// ShowQueue returns one queue with all that is known of it.
func (o *Ops) ShowQueue(ctx context.Context, name string) (QueueDetail, error) {
	info, err := o.store.QueueInfo(ctx, o.pool, name)
	if errors.Is(err, pgx.ErrNoRows) {
		return QueueDetail{}, o.unknownQueue(ctx, name)
	}
	if err != nil {
		return QueueDetail{}, fmt.Errorf("read queue %q: %w", name, err)
	}
	queues, err := o.count(ctx, []string{name})
	if err != nil {
		return QueueDetail{}, o.noQueue(ctx, name, err)
	}
	return QueueDetail{Queue: queues[0], CreatedAt: info.CreatedAt, Subscribed: info.Subscribed, Instances: info.Instances}, nil
}

// Message is a ready message.
type Message struct {
	Seq       int64 // place in the queue
	ID        string
	Type      string
	SentAt    time.Time
	ExpiresAt *time.Time      // nil: never
	Attempt   int             // attempts already made
	Headers   json.RawMessage // a JSON object of strings; nil: none
	Body      []byte
}

// Peek returns the first n ready messages of a queue in order of arrival, without taking them; those that a receiver
// holds at this moment are among them.
func (o *Ops) Peek(ctx context.Context, queue string, n int) ([]Message, error) {
	peeked, err := o.store.Peek(ctx, o.pool, queue, n)
	if err != nil {
		return nil, o.noQueue(ctx, queue, fmt.Errorf("peek into queue %q: %w", queue, err))
	}
	messages := make([]Message, len(peeked))
	for i, p := range peeked {
		messages[i] = Message{Seq: p.Seq, ID: p.ID, Type: p.Type, SentAt: p.SentAt, ExpiresAt: p.ExpiresAt, Attempt: p.Attempt,
			Headers: p.Headers, Body: p.Body}
	}
	return messages, nil
}

// Purged says what Purge removed.
type Purged struct {
	Ready   int64
	Delayed int64
}

// Purge removes the messages of a queue that were ready or delayed when it began, for good, and returns how many, also
// together with an error. Messages that a receiver holds or an instance has leased are being handled, and stay; so do
// failed ones. It works in batches, so one that was interrupted has removed some and can be called again.
func (o *Ops) Purge(ctx context.Context, queue string) (Purged, error) {
	exists, err := o.store.QueueExists(ctx, o.pool, queue)
	if err != nil {
		return Purged{}, fmt.Errorf("look for queue %q: %w", queue, err)
	}
	if !exists {
		return Purged{}, o.unknownQueue(ctx, queue)
	}
	purged, err := o.purge(ctx, queue)
	if err != nil {
		return purged, o.noQueue(ctx, queue, fmt.Errorf("purge queue %q: %w", queue, err))
	}
	return purged, nil
}

func (o *Ops) purge(ctx context.Context, queue string) (purged Purged, err error) {
	// Delayed ones first: meanwhile some may become ready.
	lastDelayed, err := o.store.LastDelayed(ctx, o.pool)
	if err != nil {
		return purged, err
	}
	for place := (&store.DelayedKey{}); place != nil; {
		var n int64
		n, place, err = o.store.PurgeDelayed(ctx, o.pool, queue, *place, lastDelayed, purgeBatch)
		if err != nil {
			return purged, err
		}
		purged.Delayed += n
	}
	lastReady, err := o.store.LastReady(ctx, o.pool, queue)
	if err != nil {
		return purged, err
	}
	for after := int64(0); ; {
		n, last, err := o.store.PurgeReady(ctx, o.pool, queue, after, lastReady, purgeBatch)
		if err != nil {
			return purged, err
		}
		purged.Ready += n
		if n < purgeBatch {
			return purged, nil
		}
		after = last
	}
}

// DropQueue removes a queue and its subscriptions, and returns how many messages went with it. A queue that holds messages,
// ready, delayed or leased, is only dropped by force. Failed messages stay in the error table. It waits for transactions
// that send to the queue or handle its messages, and they wait for it.
func (o *Ops) DropQueue(ctx context.Context, name string, force bool) (removed int64, err error) {
	removed, err = o.store.DropQueue(ctx, o.pool, name, force)
	if err != nil {
		return 0, o.noQueue(ctx, name, fmt.Errorf("drop queue %q: %w", name, err))
	}
	return removed, nil
}
