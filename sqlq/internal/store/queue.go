package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
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

// MayReceive says whether a queue's table exists, and whether this role may receive from it. Locks nothing.
func (s Queues) MayReceive(ctx context.Context, db DBTX, queue string) (exists, may bool, err error) {
	err = db.QueryRow(ctx, `
		SELECT t IS NOT NULL, coalesce(has_table_privilege(t, 'SELECT') AND has_table_privilege(t, 'DELETE'), false)
		FROM (SELECT to_regclass($1::text)) q (t)`, s.ready(queue)).Scan(&exists, &may)
	return exists, may, err
}

// Hidden is a queue whose messages row security may hide from this role.
type Hidden struct {
	Queue    string
	Policies bool // some policy lets the role see rows; which, only they know
}

// Hidden appends those of the queues to into for whose tables row security is on and concerns this role. Without a
// policy for it every look finds nothing, without an error. Locks nothing.
func (s Queues) Hidden(b *pgx.Batch, queues []string, into *[]Hidden) {
	tables := make([]string, len(queues))
	for i, q := range queues {
		tables[i] = s.ready(q)
	}
	b.Queue(`
		SELECT q.name, EXISTS (
			SELECT FROM pg_policy p, unnest(p.polroles) r (oid)
			WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*') AND p.polpermissive
				AND CASE WHEN r.oid = 0 THEN true ELSE pg_has_role(r.oid, 'USAGE') END
		) FROM unnest($1::text[], $2::text[]) q (name, ready) JOIN pg_class c ON c.oid = to_regclass(q.ready)
		WHERE c.relrowsecurity AND row_security_active(c.oid) ORDER BY q.name`, queues, tables).Query(func(rows pgx.Rows) error {
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Hidden])
		*into = append(*into, all...)
		return err
	})
}

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

// Swept is what one piece of a sweep did.
type Swept struct {
	Removed int
	UpTo    int64 // the seq up to which it has looked; 0: to the end of the queue
	More    bool  // the bytes kept it from reading on
}

// SweepExpired removes messages from a queue whose time to live has passed. It reads up to rows rows after a seq, in order,
// and removes no more than so many bytes, but one message at least. Expiry has no index, because every message would pay for
// it. Rows that others hold are passed over. It is done as the owner of the schema. An error with SQLSTATE 55P03 says that
// somebody has the queue's table for long. Relies on the primary key.
func (s Queues) SweepExpired(ctx context.Context, db DBTX, queue string, after int64, rows int, bytes int64) (swept Swept, err error) {
	err = db.QueryRow(ctx, fmt.Sprintf(`SELECT removed, up_to, more FROM %s($1::text, $2::bigint, $3::bigint, $4::bigint)`, s.table("sweep_expired")),
		queue, after, rows, bytes).Scan(&swept.Removed, &swept.UpTo, &swept.More)
	return swept, err
}

// ReadTraffic takes a reading of what has arrived in the queues. It writes a row for each queue in which something arrived
// since the last reading or the one before, and is done as the owner of the schema. An error with SQLSTATE 55P03 says that
// somebody holds a queue's sequence for long: a transaction drops the queue.
func (s Queues) ReadTraffic(ctx context.Context, db DBTX) error {
	_, err := db.Exec(ctx, fmt.Sprintf(`SELECT %s()`, s.table("read_traffic")))
	return err
}
