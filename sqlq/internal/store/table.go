package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Tables are what is to be known of tables: which one it is, and who writes to it.
type Tables struct{ base }

// TableID identifies a queue's table: a dropped and re-created queue has another.
type TableID uint32

// Channel is the channel on which senders wake the receivers of the table's queue.
func (t TableID) Channel() string { return fmt.Sprintf("sqlq_%d", t) }

// CallChannel is the channel on which a receiver that has more than it can do calls others.
func (t TableID) CallChannel() string { return t.Channel() + "_call" }

// LeadChannel is the channel, of the delayed table, on which a process that leads says that it leads no more.
func (t TableID) LeadChannel() string { return t.Channel() + "_lead" }

func (t TableID) lockKey() int32 { return int32(int64(t) - 2147483648) }

// Ready returns the identities of the tables of queues; 0 where there is no such queue. Locks nothing.
func (s Tables) Ready(ctx context.Context, db DBTX, queues []string) ([]TableID, error) {
	names := make([]string, len(queues))
	for i, q := range queues {
		names[i] = s.ready(q)
	}
	rows, err := db.Query(ctx, `SELECT coalesce(to_regclass(t.name)::oid, 0) FROM unnest($1::text[]) WITH ORDINALITY t (name, n) ORDER BY n`, names)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (id TableID, err error) {
		err = row.Scan((*uint32)(&id))
		return id, err
	})
}

// Shared returns the identities of the delayed table, whose channel tells movers of a message that is due soon, and of
// the registry of queues, whose channel tells of new, paused and resumed queues. Locks nothing.
func (s Tables) Shared(ctx context.Context, db DBTX) (delayed, queues TableID, err error) {
	err = db.QueryRow(ctx, `SELECT $1::text::regclass::oid, $2::text::regclass::oid`, s.table("delayed"), s.table("queue")).
		Scan((*uint32)(&delayed), (*uint32)(&queues))
	return delayed, queues, err
}

// Writer is a transaction that has written to a queue's table, or is about to, and has not ended.
type Writer struct {
	Table       TableID
	Transaction string // virtual transaction id; of a prepared transaction its own
}

// TransactionsOn returns the transactions of those that write to a table.
func TransactionsOn(writers []Writer, table TableID) map[string]bool {
	found := map[string]bool{}
	for _, w := range writers {
		if w.Table == table {
			found[w.Transaction] = true
		}
	}
	return found
}

// Writers appends the transactions that hold RowExclusiveLock on the tables to into: everyone who inserts holds it
// until the end, prepared transactions too. Those of this session are left out. Locks nothing.
func (s Tables) Writers(b *pgx.Batch, tables []TableID, into *[]Writer) {
	b.Queue(`
		SELECT DISTINCT relation, virtualtransaction FROM pg_locks
		WHERE locktype = 'relation' AND relation = ANY ($1::oid[]) AND mode = 'RowExclusiveLock' AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND pid IS DISTINCT FROM pg_backend_pid()`, oids(tables)).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var w Writer
			if err := rows.Scan((*uint32)(&w.Table), &w.Transaction); err != nil {
				return err
			}
			*into = append(*into, w)
		}
		return rows.Err()
	})
}

// WritersOf appends the transactions that hold RowExclusiveLock on a queue's table to into, those of this session apart, as
// Writers does. Locks nothing.
func (s Tables) WritersOf(b *pgx.Batch, queue string, into *[]string) {
	b.Queue(`
		SELECT DISTINCT virtualtransaction FROM pg_locks
		WHERE locktype = 'relation' AND relation = to_regclass($1) AND mode = 'RowExclusiveLock' AND granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND pid IS DISTINCT FROM pg_backend_pid()`, s.ready(queue)).Query(func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
}

// Waiting says for each queue whether its table has any row, held ones included. It waits for whoever locks a table against
// reading. It is not prepared: each choice of queues is another statement. Relies on the primary keys.
func (s Tables) Waiting(ctx context.Context, db DBTX, queues []string) (waiting []bool, err error) {
	parts := make([]string, len(queues))
	for i, q := range queues {
		parts[i] = `EXISTS (SELECT FROM ` + s.ready(q) + `)`
	}
	err = db.QueryRow(ctx, `SELECT ARRAY[`+strings.Join(parts, `, `)+`]::boolean[]`, pgx.QueryExecModeExec).Scan(&waiting)
	return waiting, err
}

// Locked says of each table whether somebody has locked it against reading, or waits to do so. Locks nothing.
func (s Tables) Locked(ctx context.Context, db DBTX, tables []TableID) (locked []bool, err error) {
	err = db.QueryRow(ctx, `
		SELECT array_agg(EXISTS (
			SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = t.id AND l.mode = 'AccessExclusiveLock'
				AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY t.n)
		FROM unnest($1::oid[]) WITH ORDINALITY t (id, n)`, oids(tables)).Scan(&locked)
	return locked, err
}

func oids(tables []TableID) []uint32 {
	ids := make([]uint32, len(tables))
	for i, t := range tables {
		ids[i] = uint32(t)
	}
	return ids
}
