package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Subscriptions say which queues get a copy of which events.
type Subscriptions struct{ base }

// Add lets a queue have a copy of every event of these types that is published after the commit. Locks nothing.
// Relies on the primary key. Row security asks whether the role may subscribe to each type that is not subscribed already.
func (s Subscriptions) Add(ctx context.Context, db DBTX, queue string, types []string) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		INSERT INTO %[1]s (type, queue) SELECT t, $2::text FROM unnest($1::text[]) t
		WHERE NOT EXISTS (SELECT FROM %[1]s s WHERE s.type = t AND s.queue = $2::text) ON CONFLICT DO NOTHING`, s.table("subscription")), types, queue)
	return err
}

// Subscription is a queue that gets the events of a type.
type Subscription struct {
	Type      string
	Queue     string
	CreatedAt time.Time
	Instances int // of the queue's endpoint, running
}

// List returns the subscriptions of a type and a queue by type and queue; "" is every one. Locks nothing.
// There is one for each event that an endpoint handles: few.
func (s Subscriptions) List(ctx context.Context, db DBTX, messageType, queue string) ([]Subscription, error) {
	rows, err := db.Query(ctx, fmt.Sprintf(`
		SELECT s.type, s.queue, s.created_at, coalesce(i.n, 0)
		FROM %s s LEFT JOIN (
			SELECT endpoint, count(*) AS n FROM %s WHERE drained_at IS NULL AND crashed_at IS NULL GROUP BY endpoint
		) i ON i.endpoint = s.queue
		WHERE ($1::text = '' OR s.type = $1::text) AND ($2::text = '' OR s.queue = $2::text) ORDER BY s.type, s.queue`,
		s.table("subscription"), s.table("instance")), messageType, queue)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Subscription])
}
