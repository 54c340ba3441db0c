package store

import (
	"context"
	"fmt"
)

// CreateQueue makes a queue and says whether it was not there yet. Takes the advisory lock of queue DDL.
func (s *Schema) CreateQueue(ctx context.Context, db DBTX, name string) (made bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1::text)`, s.table("create_queue")), name).Scan(&made)
	return made, err
}

// QueueNames returns all queues of the registry, by name. Locks nothing.
func (s *Schema) QueueNames(ctx context.Context, db DBTX) ([]string, error) {
	var names []string
	err := db.QueryRow(ctx, fmt.Sprintf(`SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM %s`, s.table("queue"))).Scan(&names)
	return names, err
}
