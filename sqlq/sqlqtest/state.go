package sqlqtest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// state is how many messages of a queue are where.
type state struct {
	queue                              string
	ready, leased, due, later, inError int
	everSent                           int // since the database was made
}

type states []state

func (s states) sum(of func(state) int) (n int) {
	for _, q := range s {
		n += of(q)
	}
	return n
}

// settled says that there is nothing to do now.
func (s states) settled() bool {
	return s.sum(func(q state) int { return q.ready + q.leased + q.due }) == 0
}

func (s states) delayed() int { return s.sum(func(q state) int { return q.due + q.later }) }
func (s states) failed() int  { return s.sum(func(q state) int { return q.inError }) }
func (s states) arrived() int { return s.sum(func(q state) int { return q.everSent }) }
func (s states) total() int {
	return s.sum(func(q state) int { return q.ready + q.leased + q.due + q.later + q.inError })
}

// states counts the messages of queues, all in one statement. A message that a receiver holds is still ready. What is due is
// asked of the clock, not of the beginning of the statement: a message that is to be retried at once may have been stored
// since.
func (h *Harness) states(ctx context.Context, queues []string) (states, error) {
	if len(queues) == 0 {
		return nil, nil
	}
	var each []string
	for i, queue := range queues {
		each = append(each, fmt.Sprintf(`
		SELECT $%[1]d::text, (SELECT count(*) FROM %[2]s), (SELECT count(*) FROM %[3]s WHERE queue = $%[1]d::text),
			d.due, d.n - d.due, (SELECT count(*) FROM %[5]s WHERE queue = $%[1]d::text), (SELECT count(*) FROM sqlqtest.sent WHERE queue = $%[1]d::text)
		FROM (SELECT count(*) AS n, count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due FROM %[4]s WHERE queue = $%[1]d::text) d`,
			i+1, h.table("q_"+queue), h.table("leased"), h.table("delayed"), h.table("error")))
	}
	args := make([]any, len(queues))
	for i := range queues {
		args[i] = queues[i]
	}
	rows, err := h.own.Query(ctx, strings.Join(each, "\nUNION ALL"), args...)
	if err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s state, err error) {
		err = row.Scan(&s.queue, &s.ready, &s.leased, &s.due, &s.later, &s.inError, &s.everSent)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("count messages: %w", err)
	}
	return all, nil
}

// leftMost is how many messages left says of each queue.
const leftMost = 10

// left lists the messages that keep queues from being settled, each with what is known of its last attempt.
func (h *Harness) left(ctx context.Context, queues []string) (lines []string, err error) {
	for _, queue := range queues {
		rows, err := h.own.Query(ctx, fmt.Sprintf(`
			SELECT m.place, m.id, m.type, m.attempt, coalesce(m.error, ''), q.paused_at IS NOT NULL
			FROM (
				SELECT 'ready' AS place, id, type, attempt, NULL AS error FROM %[1]s
				UNION ALL SELECT 'leased', id, type, attempt, NULL FROM %[2]s WHERE queue = $1::text
				UNION ALL SELECT 'delayed', id, type, attempt, error FROM %[3]s WHERE queue = $1::text
			) m, %[4]s q
			WHERE q.name = $1::text LIMIT $2::bigint`, h.table("q_"+queue), h.table("leased"), h.table("delayed"), h.table("queue")), queue, leftMost+1)
		if err != nil {
			return nil, err
		}
		paused := false
		of, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (line string, err error) {
			var place, kind, failure string
			var id sqlq.ID
			var made int
			if err := row.Scan(&place, (*[16]byte)(&id), &kind, &made, &failure, &paused); err != nil {
				return "", err
			}
			line = fmt.Sprintf("  queue %q: %s, %s, message %v, %d attempts on record", queue, kind, place, id, made)
			if failure != "" {
				line += ", the last failed: " + failure
			}
			return line + "; " + h.attempts.of(id, queue), nil
		})
		if err != nil {
			return nil, err
		}
		if len(of) > leftMost {
			of[leftMost] = fmt.Sprintf("  queue %q: and more", queue)
		}
		if paused {
			of = append(of, fmt.Sprintf("  queue %q is paused", queue))
		}
		lines = append(lines, of...)
	}
	if lines == nil {
		lines = []string{"  nothing any more"}
	}
	return lines, nil
}

// Advance makes everything in the database older by d, as if that time had passed: delayed messages are due so much earlier,
// and times to live end so much earlier. No clock is changed, and nothing is handled yet: Drain follows. What was due within
// d becomes due all at once. What endpoints have in hand at this moment is left alone. d must not be negative.
func (h *Harness) Advance(t TB, d time.Duration) {
	t.Helper()
	if d < 0 {
		fatalf(t, "sqlqtest: advance by %v: time does not go back", d)
	}
	ctx, cancel := context.WithTimeout(context.Background(), h.Patience)
	defer cancel()
	if err := h.advance(ctx, d); err != nil {
		fatalf(t, "sqlqtest: %v", err)
	}
}

// advance passes over rows that others hold: in one transaction over all tables, to wait for them could be a deadlock.
func (h *Harness) advance(ctx context.Context, d time.Duration) error {
	queues, err := h.store.QueueNames(ctx, h.own)
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	batch := &pgx.Batch{}
	// Never before now: those who move what is due do not look further back.
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
	batch.Queue(fmt.Sprintf(`SELECT pg_notify('sqlq_' || '%s'::regclass::oid, '')`, strings.ReplaceAll(h.table("delayed"), `'`, `''`)))
	if err := h.own.SendBatch(ctx, batch).Close(); err != nil { // one transaction
		return fmt.Errorf("advance by %v: %w", d, err)
	}
	return nil
}

// advanceToNext advances to the due time of the delayed message of the queues that is due next.
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
