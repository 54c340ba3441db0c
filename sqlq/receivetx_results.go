package sqlq

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// guardedRows notes how a query ended and, where it rode with the savepoint, ends that round trip with it.
type guardedRows struct {
	pgx.Rows
	tx      *receiveTx
	results pgx.BatchResults
}

func (r *guardedRows) Next() bool {
	if r.Rows.Next() {
		return true
	}
	r.end()
	return false
}

func (r *guardedRows) Close() {
	r.Rows.Close()
	r.end()
}

func (r *guardedRows) end() {
	r.tx.mu.Lock()
	defer r.tx.mu.Unlock()
	r.finish()
}

func (r *guardedRows) finish() {
	r.tx.learn(r.Rows.Err())
	if r.results != nil {
		r.tx.learn(r.results.Close())
		r.results = nil
	}
}

type guardedRow struct {
	rows pgx.Rows
	err  error
}

func (r *guardedRow) Scan(into ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(into...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

type guardedBatch struct {
	pgx.BatchResults
	tx *receiveTx
}

func (b *guardedBatch) Exec() (pgconn.CommandTag, error) {
	tag, err := b.BatchResults.Exec()
	b.learn(err)
	return tag, err
}

// Tx returns nothing: a batch cannot begin the transaction that it is in.
func (b *guardedBatch) Tx() pgx.Tx { return nil }

func (b *guardedBatch) Close() error {
	err := b.BatchResults.Close()
	b.learn(err)
	return err
}

func (b *guardedBatch) learn(err error) {
	b.tx.mu.Lock()
	defer b.tx.mu.Unlock()
	b.tx.learn(err)
}

// refusedBatch is a batch that was not sent.
type refusedBatch struct{ err error }

func (b refusedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, b.err }
func (b refusedBatch) Query() (pgx.Rows, error)         { return nil, b.err }
func (b refusedBatch) QueryRow() pgx.Row                { return &guardedRow{err: b.err} }
func (b refusedBatch) Tx() pgx.Tx                       { return nil }
func (b refusedBatch) Close() error                     { return b.err }
