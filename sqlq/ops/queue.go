package ops

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Queue is what waits in a queue and around it.
type Queue struct {
	Name    string // the endpoint's too
	Ready   Count  // in the queue's table, those included that a receiver holds at this moment
	Delayed Count  // deferred by their sender, or waiting for their next attempt
	Leased  Count  // slow ones, in the hands of an instance
	Failed  Count  // in the error table, archived ones left out

	// OldestAt is when the oldest ready message was sent, among the first CountLimit in order of arrival, and OldestAge
	// how long ago that was by the clock of the database; nil: none is ready.
	OldestAt  *time.Time
	OldestAge *time.Duration // see OldestAt

	// In is how many messages a second arrive, from two readings of the queue's sequence that the leading instance takes
	// ten seconds apart; nil: not known, because no instance runs. It counts messages that are sent, and those that come back: from
	// the delayed, from leases and by replays. Out is how many its instances complete, as of their last heartbeats.
	In  *float64
	Out float64 // see In

	Instances int        // running processes that handle its messages
	PausedAt  *time.Time // since when no message is handed out; nil: it is not paused
	PausedBy  string     // who did that, and why
}

// QueueDetail is a queue with what else is known of it.
type QueueDetail struct {
	Queue
	CreatedAt  time.Time       // when it was made
	Subscribed []string        // event types
	Running    []QueueInstance // instances of its endpoint
	Size       int64           // bytes of its table, with the index and large bodies
	Dead       int64           // rows in it that vacuum has not removed, by the database's statistics
	Low        int64           // no message has a seq up to this: receivers begin to look there
}

// QueueInstance is a process that handles a queue's messages, as of its last heartbeat.
type QueueInstance struct {
	Number      int       // of the instance
	Host        string    // on which it runs
	PID         int       // its process there
	Version     string    // of its program
	Concurrency int       // how many messages it handles at a time
	InHand      int       // handlers running
	Rate        float64   // messages a second that it completes
	StartedAt   time.Time // when it began
	HeartbeatAt time.Time // its last
}

// queueJSON is a queue as sqlq queue ls -o json shows it.
type queueJSON struct {
	Name      string     `json:"queue"`
	Ready     int64      `json:"ready"`
	Delayed   int64      `json:"delayed"`
	Leased    int64      `json:"leased"`
	Failed    int64      `json:"failed"`
	Estimated []string   `json:"estimated,omitempty"` // the counts that are estimates
	OldestAt  *time.Time `json:"oldest_sent_at"`
	OldestAge *float64   `json:"oldest_age_seconds"`
	In        *float64   `json:"in_per_second"`
	Out       float64    `json:"out_per_second"`
	Instances int        `json:"instances"`
	PausedAt  *time.Time `json:"paused_at"`
	PausedBy  string     `json:"paused_by,omitempty"`
}

func (q Queue) asJSON() queueJSON {
	shown := queueJSON{q.Name, q.Ready.N, q.Delayed.N, q.Leased.N, q.Failed.N, nil, optionalTime(q.OldestAt), optionalSeconds(q.OldestAge), q.In, q.Out,
		q.Instances, optionalTime(q.PausedAt), q.PausedBy}
	for i, c := range []Count{q.Ready, q.Delayed, q.Leased, q.Failed} {
		if c.Estimated {
			shown.Estimated = append(shown.Estimated, []string{"ready", "delayed", "leased", "failed"}[i])
		}
	}
	return shown
}

// MarshalJSON writes the queue as sqlq queue ls -o json does: counts as numbers, and which of them are estimates.
func (q Queue) MarshalJSON() ([]byte, error) { return encode(q.asJSON()) }

// MarshalJSON writes the queue as sqlq queue show -o json does.
func (q QueueDetail) MarshalJSON() ([]byte, error) {
	return encode(struct {
		queueJSON
		CreatedAt  time.Time       `json:"created_at"`
		Subscribed []string        `json:"subscribed"`
		Size       int64           `json:"table_bytes"`
		Dead       int64           `json:"dead_rows"`
		Low        int64           `json:"low"`
		Running    []QueueInstance `json:"running"`
	}{q.asJSON(), timeAsJSON(q.CreatedAt), q.Subscribed, q.Size, q.Dead, q.Low, listed(q.Running)})
}

// MarshalJSON writes the instance as sqlq queue show -o json does.
func (i QueueInstance) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Number      int       `json:"number"`
		Host        string    `json:"host"`
		PID         int       `json:"pid"`
		Version     string    `json:"version"`
		Concurrency int       `json:"concurrency"`
		InHand      int       `json:"in_hand"`
		Rate        float64   `json:"out_per_second"`
		StartedAt   time.Time `json:"started_at"`
		HeartbeatAt time.Time `json:"heartbeat_at"`
	}{i.Number, i.Host, i.PID, i.Version, i.Concurrency, i.InHand, i.Rate, timeAsJSON(i.StartedAt), timeAsJSON(i.HeartbeatAt)})
}

// Create makes a queue; false: it was there already.
func (o Queues) Create(ctx context.Context, name string) (made bool, err error) {
	made, err = o.store.Queues.Create(ctx, o.pool, name)
	if err != nil {
		return false, fmt.Errorf("create queue %q: %w", name, err)
	}
	return made, nil
}

// PreviewCreate reports whether Queues.Create would make a queue, and changes nothing: it makes it and rolls that back. Its errors
// are those of Queues.Create.
func (o Queues) PreviewCreate(ctx context.Context, name string) (would bool, err error) {
	err = o.rolledBack(ctx, func(tx pgx.Tx) error {
		would, err = o.store.Queues.Create(ctx, tx, name)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("create queue %q: %w", name, err)
	}
	return would, nil
}

// List returns all queues by name, with their counts. It reads a bounded number of rows, however many messages wait.
func (o Queues) List(ctx context.Context) ([]Queue, error) {
	// A queue may be dropped between the list and the counts; then both are made again.
	for tries := 3; ; tries-- {
		states, err := o.store.QueueStates(ctx, o.pool, "")
		if err != nil {
			return nil, fmt.Errorf("list queues: %w", err)
		}
		queues, err := o.count(ctx, states)
		if err == nil {
			return queues, nil
		}
		if tries == 1 || sqlState(err) != undefinedTable {
			return nil, err
		}
	}
}

// Names returns the names of all queues, in their order.
func (o Queues) Names(ctx context.Context) ([]string, error) {
	names, err := o.store.Queues.Names(ctx, o.pool)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	return names, nil
}

// TypeNames returns the message types that are known to the database, in their order: those that are subscribed, and those
// of failed messages. Queues are not searched.
func (o Routes) TypeNames(ctx context.Context) ([]string, error) {
	names, err := o.store.TypeNames(ctx, o.pool)
	if err != nil {
		return nil, fmt.Errorf("list message types: %w", err)
	}
	return names, nil
}

// NearTypes returns the message types, among those of TypeNames, that a mistyped name may stand for; nil: the name is one of them, or
// none is similar.
func (o Routes) NearTypes(ctx context.Context, name string) ([]string, error) {
	names, err := o.TypeNames(ctx)
	if err != nil || slices.Contains(names, name) {
		return nil, err
	}
	found := alike(name, names)
	return found[:min(len(found), 8)], nil
}

// Show returns one queue with all that is known of it.
func (o Queues) Show(ctx context.Context, name string) (QueueDetail, error) {
	failed := func(err error) (QueueDetail, error) {
		return QueueDetail{}, o.noQueue(ctx, name, fmt.Errorf("read queue %q: %w", name, err))
	}
	if name == "" { // which would choose all
		return QueueDetail{}, o.unknownQueue(ctx, name)
	}
	states, err := o.store.QueueStates(ctx, o.pool, name)
	if err != nil {
		return failed(err)
	}
	if len(states) == 0 {
		return QueueDetail{}, o.unknownQueue(ctx, name)
	}
	queues, err := o.count(ctx, states)
	if err != nil {
		return QueueDetail{}, o.noQueue(ctx, name, err)
	}
	table, err := o.store.QueueTable(ctx, o.pool, name)
	if err != nil {
		return failed(err)
	}
	instances, err := o.store.QueueInstances(ctx, o.pool, name)
	if err != nil {
		return failed(err)
	}
	q := QueueDetail{Queue: queues[0], CreatedAt: states[0].CreatedAt, Subscribed: table.Subscribed, Size: table.Bytes, Dead: table.Dead, Low: states[0].Low}
	for _, i := range instances {
		q.Running = append(q.Running, QueueInstance{int(i.ID), i.Host, i.PID, i.Version, i.Concurrency, i.InHand, finite(i.Rate), i.StartedAt, i.HeartbeatAt})
	}
	return q, nil
}

// Drop removes a queue and its subscriptions, and returns how many messages went with it. A queue that holds messages,
// ready, delayed or leased, is only dropped by force. Failed messages stay in the error table. It waits for transactions
// that send to the queue or handle its messages, and they wait for it.
func (o Queues) Drop(ctx context.Context, name string, force bool) (removed int64, err error) {
	err = pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		if removed, err = o.store.DropQueue(ctx, tx, name, force); err != nil {
			return err
		}
		return o.record(ctx, tx, kindDrop, name, struct{}{}, removed)
	})
	if err != nil {
		return 0, o.noQueue(ctx, name, fmt.Errorf("drop queue %q: %w", name, err))
	}
	return removed, nil
}
