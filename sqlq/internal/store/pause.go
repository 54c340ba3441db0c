package store

import (
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Paused is a queue that an operator has paused.
type Paused struct {
	Queue string
	Since time.Time
	By    string // who, and why
}

// Paused appends those of the queues that are paused to into. Locks nothing. Relies on the registry's primary key.
func (s Queues) Paused(b *pgx.Batch, queues []string, into *[]Paused) {
	b.Queue(fmt.Sprintf(`
		SELECT name, paused_at, coalesce(paused_by, '') FROM %s WHERE name = ANY ($1::text[]) AND paused_at IS NOT NULL`, s.table("queue")),
		queues).Query(func(rows pgx.Rows) error {
		paused, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Paused])
		*into = append(*into, paused...)
		return err
	})
}
