package store

import (
	"context"
	"fmt"
)

// Queues are the registry of queues, and what is done to each as a whole.
type Queues struct{ base }

// Create makes a queue and says whether it was not there yet. Takes the advisory lock of queue DDL.
func (s Queues) Create(ctx context.Context, db DBTX, name string) (made bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::text)`, s.table("create_queue")), name).Scan(&made)
	return made, err
}

// Names returns all queues of the registry, by name. Locks nothing.
func (s Queues) Names(ctx context.Context, db DBTX) ([]string, error) {
	var names []string
	err := db.QueryRow(ctx, fmt.Sprintf(`SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM %s`, s.table("queue"))).Scan(&names)
	return names, err
}
