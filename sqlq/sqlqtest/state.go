package sqlqtest

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// state is how many messages of a queue are in each place.
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

// settled reports whether there is nothing to do now.
func (s states) settled() bool {
	return s.sum(func(q state) int { return q.ready + q.leased + q.due }) == 0
}

func (s states) delayed() int { return s.sum(func(q state) int { return q.due + q.later }) }
func (s states) failed() int  { return s.sum(func(q state) int { return q.inError }) }
func (s states) arrived() int { return s.sum(func(q state) int { return q.everSent }) }
func (s states) total() int {
	return s.sum(func(q state) int { return q.ready + q.leased + q.due + q.later + q.inError })
}

// states counts the messages of queues, all in one statement. A message that a receiver holds counts as ready. What is due is
// decided by the clock, not by the start of the statement: a message for immediate retry may have been stored since.
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

// left lists at most leftMost messages of each queue.
const leftMost = 10

// left lists the messages that keep queues from being settled, each with what is known about its last attempt.
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
			line = fmt.Sprintf("  queue %q: %s, %s, message %v, %s on record", queue, kind, place, id, attemptsOf(made))
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
		lines = []string{"  nothing"}
	}
	return lines, nil
}
