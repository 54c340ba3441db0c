package sqlq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// receiveTx is the receive transaction as HandleTx handlers see it: a pgx.Tx that refuses to end, puts a savepoint in
// front of each handler's first statement, and notes what it must know to undo one handler's work.
type receiveTx struct {
	base    context.Context
	in      *instance
	conn    *conn
	later   bool // a handler of this batch has finished: this is not the first
	plans   bool // the handlers' planner settings are in force
	limited bool // lock_timeout is in force
	verdict txVerdict

	mu        sync.Mutex // the connection is used by one at a time: the handler, or the ping that keeps it alive
	active    bool       // a handler runs
	savepoint bool       // one exists in the transaction
	begun     bool       // it stands in front of this handler's work
	waited    bool       // a statement of this handler gave up waiting for a lock
	deadlock  bool       // likewise, because whoever held it waited for one of this transaction
	failure   error      // the first SQL error of this handler
	rows      []*guardedRows
	ping      *time.Timer
}

// txVerdict says whether a HandleTx handler's own result decides about its message.
type txVerdict int

const (
	txDecides txVerdict = iota
	txYields            // it waited for a lock, or in a circle: it goes first in the next batch
	txLost              // the connection died: the whole batch is free again
	txBroken            // the handler ended the transaction by itself: nothing of the batch can be settled here
	txAborted           // a statement failed before the savepoint stood: the work of the whole batch is undone
)

// pingEvery keeps the transaction of a slow handler from being ended as idle. A frozen process does not ping.
const pingEvery = 3 * time.Second

func newReceiveTx(base context.Context, in *instance, c *conn) *receiveTx {
	tx := &receiveTx{base: base, in: in, conn: c}
	tx.ping = time.AfterFunc(pingEvery, tx.keepAlive)
	return tx
}

func (tx *receiveTx) stop() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.ping.Stop()
	tx.ping = nil
}

func (tx *receiveTx) keepAlive() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.ping == nil {
		return
	}
	if !tx.conn.IsClosed() && !tx.conn.PgConn().IsBusy() && tx.conn.PgConn().TxStatus() == 'T' {
		ctx, cancel := context.WithTimeout(tx.base, pingEvery)
		_, _ = tx.conn.Exec(ctx, `SELECT 1`) // a failure shows at the handler's next statement
		cancel()
	}
	tx.ping.Reset(pingEvery)
}

// run calls the handler of a delivery and leaves the transaction with its work, or without any of it, ready for the
// next. The verdict says whether the returned error decides about the message. It does not return when the handler ends
// its goroutine; called again, it deals with that.
func (tx *receiveTx) run(d *delivery) error {
	err := errGoexit
	if d.exited {
		d.exited = false
	} else {
		tx.mu.Lock()
		tx.active, tx.begun, tx.waited, tx.deadlock, tx.failure, tx.verdict = true, false, false, false, nil, txDecides
		tx.mu.Unlock()
		err = tx.in.invoke(d, tx)
	}

	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.active = false
	for _, rows := range tx.rows {
		rows.Rows.Close()
		rows.finish()
	}
	tx.rows = nil
	if tx.conn.IsClosed() {
		tx.verdict = txLost
		return err
	}
	switch tx.conn.PgConn().TxStatus() {
	case 'I':
		tx.verdict = txBroken
		tx.in.client.log.Error("sqlq: a HandleTx handler ended the receive transaction past the tx it was given; its batch will be handled again", "endpoint", tx.in.endpoint.Name, "type", d.Type, "message", d.ID)
		return err
	case 'E':
		if err == nil {
			err = fmt.Errorf("%w (return it, or undo the statement with a transaction of its own, tx.Begin): %w", ErrSwallowed, serverSaid(tx.failure))
		}
	}
	if err == nil {
		return nil
	}
	if !tx.begun && tx.conn.PgConn().TxStatus() == 'E' {
		// A statement that rides with the savepoint is prepared before the savepoint is executed, and does not parse.
		tx.verdict = txAborted
		return err
	}
	if undoErr := tx.undo(); undoErr != nil {
		tx.verdict = txLost
		tx.conn.Close(tx.base)
		return errors.Join(err, undoErr)
	}
	if tx.waited && tx.limited || tx.deadlock && (tx.limited || tx.in.mayWait([]*delivery{d})) {
		tx.verdict = txYields
	}
	return err
}

// undo takes back what the handler did. Without a savepoint it did nothing.
func (tx *receiveTx) undo() error {
	if !tx.begun {
		return nil
	}
	ctx, cancel := context.WithTimeout(tx.base, 30*time.Second)
	defer cancel()
	_, err := tx.conn.Exec(ctx, `ROLLBACK TO SAVEPOINT sqlq`)
	return err
}

// front queues what goes before a handler's first statement, in the same round trip: the savepoint, and with the first
// handler of a batch the planner's settings, with the second the limit on waiting for locks.
func (tx *receiveTx) front() *pgx.Batch {
	b := &pgx.Batch{QueuedQueries: make([]*pgx.QueuedQuery, 0, 3)} // most often: release, savepoint, and the handler's own
	if tx.begun {
		return b
	}
	if tx.savepoint {
		b.Queue(`RELEASE SAVEPOINT sqlq`)
	}
	if !tx.plans {
		queueHandlerSettings(b, tx.conn)
	}
	if tx.later && !tx.limited {
		b.Queue(`SET LOCAL lock_timeout = 1`) // milliseconds
	}
	b.Queue(`SAVEPOINT sqlq`)
	return b
}

// fronted notes that what front queued has been executed.
func (tx *receiveTx) fronted() {
	tx.begun, tx.savepoint, tx.plans = true, true, true
	tx.limited = tx.limited || tx.later
}

// ride sends a handler's first statement behind what front queues, in one round trip. The statement's result comes next.
func (tx *receiveTx) ride(ctx context.Context, sql string, args []any) (pgx.BatchResults, error) {
	b := tx.front()
	n := b.Len()
	b.Queue(sql, args...)
	results := tx.conn.SendBatch(ctx, b)
	for range n {
		if _, err := results.Exec(); err != nil {
			results.Close()
			return nil, serverSaid(err)
		}
	}
	tx.fronted()
	return results, nil
}

// enter gives the handler the connection; leave takes it back and learns from the error.
func (tx *receiveTx) enter() error {
	tx.mu.Lock()
	if !tx.active {
		tx.mu.Unlock()
		return fmt.Errorf("%w: the handler has returned", pgx.ErrTxClosed)
	}
	return nil
}

func (tx *receiveTx) leave(err error) {
	tx.learn(err)
	tx.mu.Unlock()
}

func (tx *receiveTx) learn(err error) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// A wait that ends just as the first of two locks is granted is reported as cancelled by a user.
		tx.waited = tx.waited || pg.Code == lockNotAvailable || pg.Code == queryCanceled
		tx.deadlock = tx.deadlock || pg.Code == deadlockDetected
		if tx.failure == nil {
			tx.failure = err
		}
	}
}

// mustFront runs what front queues by itself, for statements that cannot ride with it.
func (tx *receiveTx) mustFront(ctx context.Context) error {
	if tx.begun {
		return nil
	}
	err := tx.conn.SendBatch(ctx, tx.front()).Close()
	if err == nil {
		tx.fronted()
	}
	return err
}

// Exec implements pgx.Tx.
func (tx *receiveTx) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	if err := tx.enter(); err != nil {
		return tag, err
	}
	defer func() { tx.leave(err) }()
	if err := refuseControl(sql); err != nil {
		return tag, err
	}
	if tx.begun || hasOptions(args) {
		if err := tx.mustFront(ctx); err != nil {
			return tag, err
		}
		return tx.conn.Exec(ctx, sql, args...)
	}
	results, err := tx.ride(ctx, sql, args)
	if err != nil {
		return tag, err
	}
	tag, err = results.Exec()
	return tag, errors.Join(err, ignoreSame(results.Close(), err))
}

// Query implements pgx.Tx.
func (tx *receiveTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := tx.enter(); err != nil {
		return nil, err
	}
	rows, err := tx.query(ctx, sql, args)
	tx.leave(err)
	return rows, err
}

func (tx *receiveTx) query(ctx context.Context, sql string, args []any) (pgx.Rows, error) {
	if err := refuseControl(sql); err != nil {
		return nil, err
	}
	guarded := &guardedRows{tx: tx}
	if tx.begun || hasOptions(args) {
		if err := tx.mustFront(ctx); err != nil {
			return nil, err
		}
		rows, err := tx.conn.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		guarded.Rows = rows
	} else {
		results, err := tx.ride(ctx, sql, args)
		if err != nil {
			return nil, err
		}
		rows, err := results.Query()
		if err != nil {
			results.Close()
			return nil, err
		}
		guarded.Rows, guarded.results = rows, results
	}
	tx.rows = append(tx.rows, guarded)
	return guarded, nil
}

// QueryRow implements pgx.Tx.
func (tx *receiveTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := tx.Query(ctx, sql, args...)
	return &guardedRow{rows: rows, err: err}
}

// SendBatch implements pgx.Tx.
func (tx *receiveTx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := tx.enter(); err != nil {
		return refusedBatch{err}
	}
	var err error
	for _, q := range b.QueuedQueries {
		err = errors.Join(err, refuseControl(q.SQL))
	}
	if err == nil {
		err = tx.mustFront(ctx)
	}
	defer func() { tx.leave(err) }()
	if err != nil {
		return refusedBatch{err}
	}
	return &guardedBatch{BatchResults: tx.conn.SendBatch(ctx, b), tx: tx}
}

// CopyFrom implements pgx.Tx.
func (tx *receiveTx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, source pgx.CopyFromSource) (n int64, err error) {
	if err := tx.enter(); err != nil {
		return 0, err
	}
	defer func() { tx.leave(err) }()
	if err := tx.mustFront(ctx); err != nil {
		return 0, err
	}
	return tx.conn.CopyFrom(ctx, table, columns, source)
}

// Prepare implements pgx.Tx.
func (tx *receiveTx) Prepare(ctx context.Context, name, sql string) (d *pgconn.StatementDescription, err error) {
	if err := tx.enter(); err != nil {
		return nil, err
	}
	defer func() { tx.leave(err) }()
	if err := tx.mustFront(ctx); err != nil {
		return nil, err
	}
	return tx.conn.Prepare(ctx, name, sql)
}

// LargeObjects implements pgx.Tx.
func (tx *receiveTx) LargeObjects() pgx.LargeObjects {
	panic("sqlq: large objects are not available in a HandleTx handler: pgx ties them to its own transaction type; call the lo_ functions by SQL")
}

// Conn implements pgx.Tx. Statements that go past tx are not undone with a failing handler unless one went through tx
// before; ending the transaction through it makes the batch be handled again.
func (tx *receiveTx) Conn() *pgx.Conn { return tx.conn.Conn }

// Commit implements pgx.Tx. It refuses: sqlq commits, with the removal of the message.
func (tx *receiveTx) Commit(context.Context) error {
	return fmt.Errorf("%w: return nil instead of calling Commit", ErrTransactionOwned)
}

// Rollback implements pgx.Tx. It refuses: an error that the handler returns undoes its work.
func (tx *receiveTx) Rollback(context.Context) error {
	return fmt.Errorf("%w: return an error instead of calling Rollback", ErrTransactionOwned)
}

// hasOptions says whether the arguments begin with one of pgx's query options, which a batch does not take.
func hasOptions(args []any) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0].(type) {
	case pgx.QueryExecMode, pgx.QueryResultFormats, pgx.QueryResultFormatsByOID:
		return true
	}
	return false
}

// ignoreSame leaves out an error that only repeats another.
func ignoreSame(err, other error) error {
	if other != nil {
		return nil
	}
	return err
}

var _ pgx.Tx = (*receiveTx)(nil)
