package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Low is from where on messages of queues are, and how far the numbers go that they were given.
type Low struct{ base }

// Sequences returns for each queue the SQL expression that says how far the numbers of its messages go, for LastValues; "" where
// there is no such queue. Locks nothing.
func (s Low) Sequences(ctx context.Context, db DBTX, queues []string) ([]string, error) {
	names := make([]string, len(queues))
	for i, q := range queues {
		names[i] = s.ready(q)
	}
	rows, err := db.Query(ctx, `
		SELECT to_regclass(t.name) IS NOT NULL FROM unnest($1::text[]) WITH ORDINALITY t (name, n) ORDER BY n`, names)
	if err != nil {
		return nil, err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return nil, err
	}
	for i, q := range queues {
		if names[i] = ""; there[i] {
			names[i] = s.arrived(q)
		}
	}
	return names, nil
}

// arrived is an SQL expression: the highest number that messages of a queue were given. The role needs the right to read that.
func (s base) arrived(queue string) string {
	return s.table("arrived") + `(` + quote(queue) + `)`
}

// LastValues appends the highest number that each sequence has given out to into; 0 for a fresh one. It sees numbers of
// transactions that have not committed, which is what it is for. Locks nothing.
func (s Low) LastValues(b *pgx.Batch, sequences []string, into *[]int64) {
	parts := make([]string, len(sequences))
	for i, name := range sequences {
		parts[i] = `(SELECT ` + name + `)`
	}
	queueArray(b, parts, nil, into)
}

// Read returns the seq up to which receivers have found that no message of a queue is; 0 when they have not. When the
// sequence has been set back since, by hand, what they found is forgotten, and only then the queue's row is locked.
// Relies on the registry's primary key.
func (s Low) Read(ctx context.Context, db DBTX, queue string) (low int64, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`
		WITH forgotten AS (
			UPDATE %[1]s SET low = 0 WHERE name = $1 AND low > (SELECT %[2]s) RETURNING low
		)
		SELECT coalesce((SELECT low FROM forgotten), low) FROM %[1]s WHERE name = $1`,
		s.table("queue"), s.arrived(queue)), queue).Scan(&low)
	return low, err
}

// Keep keeps what receivers have found for those that start later. It locks the queues' rows and passes over those that
// others hold, so it waits for nobody. Relies on the registry's primary key.
func (s Low) Keep(ctx context.Context, db DBTX, queues []string, lows []int64) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`
		WITH raised AS (
			SELECT q.name, n.low FROM %[1]s q JOIN unnest($1::text[], $2::bigint[]) n (name, low) USING (name)
			WHERE q.low < n.low FOR NO KEY UPDATE OF q SKIP LOCKED
		)
		UPDATE %[1]s q SET low = r.low FROM raised r WHERE q.name = r.name`, s.table("queue")), queues, lows)
	return err
}

// FirstAfter appends for each queue the lowest seq above a bound that a message has, held ones included, to into; 0
// where there is none. Relies on the primary keys.
func (s Low) FirstAfter(b *pgx.Batch, queues []string, after []int64, into *[]int64) {
	parts := make([]string, len(queues))
	for i, q := range queues {
		parts[i] = fmt.Sprintf(`coalesce((SELECT seq FROM %s WHERE seq > ($1::bigint[])[%d] ORDER BY seq LIMIT 1), 0)`, s.ready(q), i+1)
	}
	queueArray(b, parts, []any{after}, into)
}

// Given sets into to the highest number that a queue's sequence has given out; 0: none, or the role may not know. It sees
// numbers of transactions that have not committed. Locks nothing.
func (s Low) Given(b *pgx.Batch, queue string, into *int64) {
	b.Queue(`
		SELECT coalesce(CASE WHEN has_sequence_privilege(to_regclass($1), 'SELECT, USAGE') THEN `+s.arrived(queue)+` END, 0)`, s.table("s_"+queue)).QueryRow(func(row pgx.Row) error { return row.Scan(into) })
}

func queueArray(b *pgx.Batch, parts []string, args []any, into *[]int64) {
	b.Queue(`SELECT ARRAY[`+strings.Join(parts, `, `)+`]::bigint[]`, args...).QueryRow(func(row pgx.Row) error {
		return row.Scan(into)
	})
}
