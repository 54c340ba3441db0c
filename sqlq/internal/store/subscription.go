package store

import (
	"context"
	"fmt"
)

// EnsureQueue makes a queue where there is none.
func (s *Schema) EnsureQueue(ctx context.Context, db DBTX, name string) error {
	var made bool
	return db.QueryRow(ctx, fmt.Sprintf(`SELECT %s($1)`, s.table("create_queue")), name).Scan(&made)
}

// QueueExists says whether there is such a queue.
func (s *Schema) QueueExists(ctx context.Context, db DBTX, name string) (exists bool, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s WHERE name = $1)`, s.table("queue")), name).Scan(&exists)
	return exists, err
}

// Subscribe lets a queue have a copy of every event of these types that is published after the commit.
func (s *Schema) Subscribe(ctx context.Context, db DBTX, queue string, types []string) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		INSERT INTO %s (type, queue) SELECT t, $2 FROM unnest($1::text[]) t ON CONFLICT DO NOTHING`, s.table("subscription")), types, queue)
	return err
}
