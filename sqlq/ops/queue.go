package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// CountLimit is the number up to which messages are counted one by one. Above it a count is estimated from a sample of
// the table, so that it costs a few milliseconds whatever the backlog.
const CountLimit = 10_000

// How long a count may take. One that takes longer, because vacuum cannot remove the dead entries in front of the
// messages, is given up and estimated.
const (
	countAllWithin = 250 * time.Millisecond // of several queues in one statement
	countOneWithin = 100 * time.Millisecond
	countTogether  = 50 // queues in one statement
)

// purgeBatch is how many messages one transaction of Purge removes.
const purgeBatch = 1000

// Count is a number of messages.
type Count struct {
	N         int64
	Estimated bool // N comes from a sample of the table
}

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

// count makes all counts of the named queues, in their order.
func (o *Ops) count(ctx context.Context, names []string) ([]Queue, error) {
	queues, at := make([]Queue, len(names)), map[string]*Queue{}
	for i, name := range names {
		queues[i].Name = name
		at[name] = &queues[i]
	}
	ready, err := o.countEach(ctx, names, o.store.CountReady, o.store.EstimateReady)
	if err != nil {
		return nil, fmt.Errorf("count ready messages: %w", err)
	}
	for _, c := range ready {
		q := at[c.Queue]
		q.Ready, q.OldestAt, q.OldestAge = c.Count, c.OldestAt, c.OldestAge
	}
	failed, err := o.countEach(ctx, names, o.store.CountFailed, func(ctx context.Context, db store.DBTX, _ []string) ([]store.Counted, error) {
		return o.store.EstimateFailed(ctx, db)
	})
	if err != nil {
		return nil, fmt.Errorf("count failed messages: %w", err)
	}
	for _, c := range failed {
		at[c.Queue].Failed = c.Count
	}
	delayed, estimated, err := o.countTable(ctx, o.store.CountDelayed, o.store.EstimateDelayed)
	if err != nil {
		return nil, fmt.Errorf("count delayed messages: %w", err)
	}
	leased, leasedEstimated, err := o.countTable(ctx, o.store.CountLeased, o.store.EstimateLeased)
	if err != nil {
		return nil, fmt.Errorf("count leased messages: %w", err)
	}
	for _, q := range at {
		q.Delayed = Count{N: delayed[q.Name], Estimated: estimated}
		q.Leased = Count{N: leased[q.Name], Estimated: leasedEstimated}
	}
	return queues, nil
}

// queueCount is the count of one queue.
type queueCount struct {
	Queue string
	Count
	OldestAt  *time.Time
	OldestAge *time.Duration
}

// countEach counts for each queue apart: together in few statements, one by one where those take too long, and by an
// estimate where that takes too long as well, or reaches the limit.
func (o *Ops) countEach(ctx context.Context, names []string,
	exact func(ctx context.Context, db store.DBTX, queues []string, limit int64) ([]store.Counted, error),
	estimate func(ctx context.Context, db store.DBTX, queues []string) ([]store.Counted, error),
) (map[string]queueCount, error) {
	counts := map[string]queueCount{}
	var toEstimate []string
	count := func(queues []string, within time.Duration) (bool, error) {
		return o.within(ctx, within, func(tx pgx.Tx) error {
			counted, err := exact(ctx, tx, queues, CountLimit+1)
			for _, c := range counted {
				counts[c.Queue] = queueCount{Queue: c.Queue, Count: Count{N: c.N}, OldestAt: c.OldestAt, OldestAge: c.OldestAge}
				if c.N > CountLimit {
					toEstimate = append(toEstimate, c.Queue)
				}
			}
			return err
		})
	}
	for together := range slices.Chunk(names, countTogether) {
		ok, err := count(together, countAllWithin)
		if err != nil {
			return nil, err
		}
		for _, name := range together {
			if ok {
				break
			}
			if alone, err := count([]string{name}, countOneWithin); err != nil {
				return nil, err
			} else if !alone {
				toEstimate = append(toEstimate, name)
			}
		}
	}
	if toEstimate == nil {
		return counts, nil
	}
	estimated, err := estimate(ctx, o.pool, toEstimate)
	if err != nil {
		return nil, err
	}
	for _, e := range estimated {
		if !slices.Contains(toEstimate, e.Queue) {
			continue
		}
		c := counts[e.Queue]
		c.Queue, c.Count = e.Queue, Count{N: max(e.N, c.N), Estimated: true}
		if c.OldestAt == nil {
			c.OldestAt, c.OldestAge = e.OldestAt, e.OldestAge
		}
		counts[e.Queue] = c
	}
	return counts, nil
}

// countTable counts by queue in a table that all queues share, and estimates where it holds too many messages.
func (o *Ops) countTable(ctx context.Context,
	exact func(ctx context.Context, db store.DBTX, limit int64) ([]store.Counted, error),
	estimate func(ctx context.Context, db store.DBTX) ([]store.Counted, error),
) (counts map[string]int64, estimated bool, err error) {
	var counted []store.Counted
	ok, err := o.within(ctx, countOneWithin, func(tx pgx.Tx) error {
		counted, err = exact(ctx, tx, CountLimit+1)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	var total int64
	for _, c := range counted {
		total += c.N
	}
	if !ok || total > CountLimit {
		estimated = true
		if counted, err = estimate(ctx, o.pool); err != nil {
			return nil, false, err
		}
	}
	counts = map[string]int64{}
	for _, c := range counted {
		counts[c.Queue] = c.N
	}
	return counts, estimated, nil
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
