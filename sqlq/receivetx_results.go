package sqlq

import (
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// guardedRows notes how a query ended and, where it rode with the savepoint, ends that round trip with it. When the handler has
// returned they are closed.
type guardedRows struct {
	pgx.Rows
	tx      *handlerTx
	results pgx.BatchResults
}

func (r *guardedRows) Next() bool {
	r.tx.mu.Lock()
	defer r.tx.mu.Unlock()
	if r.Rows.Next() {
		return true
	}
	r.finish()
	return false
}

func (r *guardedRows) Close() {
	r.tx.mu.Lock()
	defer r.tx.mu.Unlock()
	r.Rows.Close()
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

// guardedBatch notes how the statements of a batch ended. When the handler has returned it is closed.
type guardedBatch struct {
	pgx.BatchResults
	tx      *handlerTx
	queries []*pgx.QueuedQuery
	closing bool // with the handler's functions, which may use the transaction, so without mu
	closed  bool
}

func (b *guardedBatch) Exec() (tag pgconn.CommandTag, err error) {
	if err := b.tx.enter(); err != nil {
		return tag, err
	}
	defer func() { b.tx.leave(err) }()
	tag, err = b.BatchResults.Exec()
	return tag, err
}

func (b *guardedBatch) Query() (pgx.Rows, error) {
	if err := b.tx.enter(); err != nil {
		return nil, err
	}
	rows, err := b.BatchResults.Query()
	if err == nil {
		guarded := &guardedRows{tx: b.tx, Rows: rows}
		b.tx.rows = append(b.tx.rows, guarded)
		rows = guarded
	}
	b.tx.leave(err)
	return rows, err
}

func (b *guardedBatch) QueryRow() pgx.Row {
	rows, err := b.Query()
	return &guardedRow{rows: rows, err: err}
}

// Tx returns nothing: a batch cannot begin the transaction that it is in.
func (b *guardedBatch) Tx() pgx.Tx { return nil }

func (b *guardedBatch) Close() (err error) {
	b.tx.mu.Lock()
	defer b.tx.mu.Unlock()
	defer func() { b.tx.learn(err) }()
	if b.closed || !b.callsBack() {
		b.closed = true
		return b.BatchResults.Close()
	}
	b.closing = true
	b.tx.mu.Unlock()
	defer func() {
		b.tx.mu.Lock()
		b.closing, b.closed = false, true
	}()
	return b.BatchResults.Close()
}

// callsBack says whether functions of the handler's are to be called with the results.
func (b *guardedBatch) callsBack() bool {
	for _, q := range b.queries {
		if q.Fn != nil {
			return true
		}
	}
	return false
}

// abandon closes a batch whose handler has returned, without calling the handler's functions, and says whether it could.
func (b *guardedBatch) abandon() bool {
	if b.closing {
		return false
	}
	for _, q := range b.queries {
		q.Fn = nil
	}
	b.tx.learn(b.BatchResults.Close())
	return true
}

// refusedBatch is a batch that was not sent.
type refusedBatch struct{ err error }

func (b refusedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, b.err }
func (b refusedBatch) Query() (pgx.Rows, error)         { return nil, b.err }
func (b refusedBatch) QueryRow() pgx.Row                { return &guardedRow{err: b.err} }
func (b refusedBatch) Tx() pgx.Tx                       { return nil }
func (b refusedBatch) Close() error                     { return b.err }
