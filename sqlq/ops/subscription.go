package ops

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Kinds of operations on subscriptions.
const (
	kindSubscribe   = "subscribe"
	kindUnsubscribe = "unsubscribe"
)

// Subscription is a queue that gets a copy of every event of a type.
type Subscription struct {
	Type      string    // of the events
	Queue     string    // that gets them
	Since     time.Time // events published later reach the queue
	Instances int       // running processes that handle the queue's messages
}

// MarshalJSON writes the subscription as sqlq subscription ls -o json does.
func (s Subscription) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Type      string    `json:"type"`
		Queue     string    `json:"queue"`
		Since     time.Time `json:"since"`
		Instances int       `json:"instances"`
	}{s.Type, s.Queue, timeAsJSON(s.Since), s.Instances})
}

// List returns the subscriptions of a type and a queue, by type and queue; "" is every one. A queue that is not
// there is a *NoQueueError.
func (o Routes) List(ctx context.Context, messageType, queue string) ([]Subscription, error) {
	found, err := o.store.Subscriptions.List(ctx, o.pool, messageType, queue)
	if err != nil {
		return nil, fmt.Errorf("list subscriptions: %w", err)
	}
	if len(found) == 0 && queue != "" {
		return nil, o.mustExist(ctx, queue)
	}
	list := make([]Subscription, len(found))
	for i, s := range found {
		list[i] = Subscription{Type: s.Type, Queue: s.Queue, Since: s.CreatedAt, Instances: s.Instances}
	}
	return list, nil
}

// Subscribe lets a queue have a copy of every event of a type that is published from now on; false: it had already. A queue
// that is not there is a *NoQueueError.
//
// Endpoints subscribe by themselves to what they handle. Messages of a type that the endpoint of the queue has no handler
// for fail.
func (o Routes) Subscribe(ctx context.Context, messageType, queue string) (added bool, err error) {
	if err := o.mustExist(ctx, queue); err != nil {
		return false, err
	}
	added, err = o.changeSubscription(ctx, kindSubscribe, messageType, queue, o.store.AddSubscription)
	if err != nil {
		return false, fmt.Errorf("subscribe queue %q to %q: %w", queue, messageType, err)
	}
	return added, nil
}

// PreviewSubscribe reports whether Subscribe would add a subscription, and changes nothing. Its errors are those of Subscribe.
func (o Routes) PreviewSubscribe(ctx context.Context, messageType, queue string) (would bool, err error) {
	if err := o.mustExist(ctx, queue); err != nil {
		return false, err
	}
	err = o.rolledBack(ctx, func(tx pgx.Tx) error {
		would, err = o.store.AddSubscription(ctx, tx, messageType, queue)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("subscribe queue %q to %q: %w", queue, messageType, err)
	}
	return would, nil
}

// Unsubscribe ends a subscription; false: there is none. Copies that are in the queue stay. A running endpoint that handles
// the event subscribes again when it next starts.
func (o Routes) Unsubscribe(ctx context.Context, messageType, queue string) (removed bool, err error) {
	removed, err = o.changeSubscription(ctx, kindUnsubscribe, messageType, queue, o.store.RemoveSubscription)
	if err != nil {
		return false, fmt.Errorf("unsubscribe queue %q from %q: %w", queue, messageType, err)
	}
	if !removed {
		return false, o.mustExist(ctx, queue)
	}
	return true, nil
}

// changeSubscription makes a change and writes it down, in one transaction.
func (o Routes) changeSubscription(ctx context.Context, kind, messageType, queue string,
	change func(ctx context.Context, db store.DBTX, messageType, queue string) (bool, error)) (changed bool, err error) {
	err = pgx.BeginFunc(ctx, o.pool, func(tx pgx.Tx) error {
		if changed, err = change(ctx, tx, messageType, queue); err != nil || !changed {
			return err
		}
		return o.record(ctx, tx, kind, queue, map[string]string{"type": messageType}, 0)
	})
	return changed, err
}
