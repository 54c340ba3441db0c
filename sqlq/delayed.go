package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// lateness is how overdue a delayed message must be before a process that does not lead moves it.
	lateness = 2 * time.Second
	// moveRows bounds the due messages that are moved in one transaction.
	moveRows = 1_000
	// moveOverlap is how far before the last moved message the next look begins: what commits later may be due earlier.
	moveOverlap = 200 * time.Millisecond
)

// moveDue moves due messages, in the process that leads, and returns when to look again.
func (k *keeper) moveDue(ctx context.Context) (time.Duration, error) {
	if !k.leadsNow() {
		return time.Hour, nil
	}
	began, from := time.Now(), k.moved.Add(-moveOverlap)
	if time.Since(k.looked) >= time.Second {
		from = time.Time{}
		k.looked = time.Now()
	}
	for {
		next, any, err := k.run.client.store.NextDue(ctx, k.conn, from)
		if err != nil {
			return 0, fmt.Errorf("look for the next due message: %w", err)
		}
		if !any {
			return time.Second, nil
		}
		if next > 0 {
			return min(next, time.Second), nil
		}
		n, err := k.moveOnce(ctx, from)
		if err != nil {
			return 0, err
		}
		switch {
		case n == 0:
			return time.Second / 10, nil // others hold what is due
		case time.Since(began) > time.Second:
			return 0, nil // there is more, and the heartbeat may be due
		}
	}
}

func (k *keeper) moveOnce(ctx context.Context, from time.Time) (n int, err error) {
	var moved []store.Moved
	err = pgx.BeginTxFunc(ctx, k.conn, k.conn.keeping(), func(tx pgx.Tx) (err error) {
		moved, err = k.run.client.store.MoveDue(ctx, tx, from, moveRows)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("move due messages: %w", err)
	}
	var channels []string
	for _, m := range moved {
		n += m.N
		if m.LastDue.After(k.moved) {
			k.moved = m.LastDue
		}
		channels = append(channels, m.Channel)
	}
	k.run.client.wake(channels...)
	return n, nil
}

// dueSoon has the mover look at once.
func (k *keeper) dueSoon() { nudge(k.kick) }
