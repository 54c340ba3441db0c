package sqlqtest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Advance makes everything in the database older by d, as if that much time had passed: delayed messages are due that much
// earlier, times to live end that much earlier, and the ids that endpoints with Deduplicate have handled are that much older. It
// changes no clock and handles nothing: call Drain afterwards. Everything that was due within d becomes due at once. Messages that
// endpoints have in hand at the moment are left alone. d must not be negative.
func (h *Harness) Advance(t TB, d time.Duration) {
	t.Helper()
	if d < 0 {
		fatalf(t, "sqlqtest: advance by %v: time does not go back", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.Timeout)
	defer cancel()
	if err := h.advance(ctx, d); err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
}

// advance skips rows that others have locked: it is one transaction over all tables, so waiting for them could deadlock.
func (h *Harness) advance(ctx context.Context, d time.Duration) error {
	queues, err := h.store.Queues.Names(ctx, h.own)
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	batch := &pgx.Batch{}
	// Never before now: the mover of due messages does not look further back.
	batch.Queue(fmt.Sprintf(`
		UPDATE %[1]s SET due_at = greatest(due_at - $1::bigint * interval '1 microsecond', clock_timestamp()),
			expires_at = expires_at - $1::bigint * interval '1 microsecond'
		WHERE ctid = ANY (ARRAY(SELECT ctid FROM %[1]s FOR UPDATE SKIP LOCKED))`, h.table("delayed")), d.Microseconds())
	tables := []string{h.table("leased"), h.table("error")}
	for _, queue := range queues {
		tables = append(tables, h.table("q_"+queue))
	}
	for _, table := range tables {
		batch.Queue(fmt.Sprintf(`
		UPDATE %[1]s SET expires_at = expires_at - $1::bigint * interval '1 microsecond'
		WHERE ctid = ANY (ARRAY(SELECT ctid FROM %[1]s WHERE expires_at IS NOT NULL FOR UPDATE SKIP LOCKED))`, table), d.Microseconds())
	}
	for _, inbox := range []string{"minutes", "hours", "days", "weeks"} {
		for _, half := range []string{"a", "b"} {
			batch.Queue(fmt.Sprintf(`
		UPDATE %[1]s SET at = at - $1::bigint * interval '1 microsecond'
		WHERE ctid = ANY (ARRAY(SELECT ctid FROM %[1]s FOR UPDATE SKIP LOCKED))`, h.table("inbox_"+inbox+"_"+half)), d.Microseconds())
		}
	}
	batch.Queue(fmt.Sprintf(`SELECT pg_notify('sqlq_' || '%s'::regclass::oid, '')`, strings.ReplaceAll(h.table("delayed"), `'`, `''`)))
	if err := h.own.SendBatch(ctx, batch).Close(); err != nil { // one transaction
		return fmt.Errorf("advance by %v: %w", d, err)
	}
	return nil
}

// advanceToNext advances to the earliest due time of the queues' delayed messages.
func (h *Harness) advanceToNext(ctx context.Context, queues []string) error {
	var us *int64
	err := h.own.QueryRow(ctx, fmt.Sprintf(`SELECT (extract(epoch FROM min(due_at) - clock_timestamp()) * 1000000)::bigint + 1 FROM %s WHERE queue = ANY ($1::text[])`,
		h.table("delayed")), queues).Scan(&us)
	if err != nil {
		return fmt.Errorf("look for the next due time: %w", err)
	}
	if us == nil || *us <= 0 {
		return nil // it is due already
	}
	return h.advance(ctx, time.Duration(*us)*time.Microsecond)
}
