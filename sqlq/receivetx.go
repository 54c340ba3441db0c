package sqlq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// receiveTx is the receive transaction while HandleTx handlers run in it. It puts a savepoint in front of each handler's first
// statement, and notes what it must know to undo one handler's work, and to leave the session as it was. What a handler
// is given is a handlerTx.
type receiveTx struct {
	base    context.Context
	in      *instance
	conn    *conn
	later   bool // a handler of this batch has finished: this is not the first
	plans   bool // the handlers' planner settings are in force
	limited bool // lock_timeout is in force
	verdict txVerdict

	mu        sync.Mutex // the connection is used by one at a time: the handler, or the ping that keeps it alive
	handed    *handlerTx // what the running handler was given; nil: none runs
	copying   bool       // a COPY of its is under way, without mu
	savepoint bool       // one exists in the transaction
	begun     bool       // it stands in front of this handler's work
	waited    bool       // a statement of this handler gave up waiting for a lock
	deadlock  bool       // likewise, because whoever held it waited for one of this transaction
	failure   error      // the first SQL error of this handler
	rows      []*guardedRows
	batches   []*guardedBatch
	prepared  []string // names of statements that it prepared
	nested    int      // transactions that it began
	ping      *time.Timer

	riding        pgx.Batch       // see front
	release, save pgx.QueuedQuery // of savepoints, in riding

	watched    *watched
	look       store.Look
	before     string // the state of the session in front of the first handler
	after      string // and behind the only one
	workers    int    // handlers that had the connection and have succeeded
	worker     string // the message type of the last of them
	savepoints int    // in the transaction, those of the handlers included
	known      bool   // handlers of this message's type change the session
	touched    bool   // and one has, as the text of its SQL says, or was given the connection
	alone      bool   // the message is to have the transaction to itself, whatever it does
	borrowed   bool   // a handler was given the connection
	replace    bool   // the connection is not fit for others: something that a handler left there may remain
	ended      bool   // queueEnd has been
	changed    bool   // the batch was not committed, because its handlers have changed the session
}

// txVerdict says whether a HandleTx handler's own result decides about its message.
type txVerdict int

const (
	txDecides txVerdict = iota
	txYields            // it waited for a lock, or in a circle: it goes first in the next batch
	txAgain             // it is to run as the first of a batch, and its work here is undone: the others go on
	txLost              // the connection died: the whole batch is free again
	txBroken            // the handler ended the transaction by itself: nothing of the batch can be settled here
	txAborted           // a statement failed before the savepoint stood: the work of the whole batch is undone
	txOpen              // the handler left the connection in use: it is closed, and with it goes the work of the whole batch
)

const (
	// pingEvery keeps the transaction of a slow handler from being ended as idle. A frozen process does not ping.
	pingEvery = 3 * time.Second
	// leaveWithin is how long a goroutine that its handler has left behind may use the connection before its statement is
	// cancelled, and then until the connection is cut.
	leaveWithin = 5 * time.Second
	// maxSavepoints ends a batch: see maxTxBatch.
	maxSavepoints = maxTxBatch
)

// newReceiveTx begins the handlers' part of a receive transaction; first is the delivery that is handled first.
func newReceiveTx(base context.Context, in *instance, c *conn, first *delivery) *receiveTx {
	tx := &receiveTx{base: base, in: in, conn: c, watched: in.client.settings.watched()}
	if tx.look, tx.alone = in.solos.howToLook(first); tx.look == store.LookQuick && c.Used {
		tx.look = store.LookTemporary
	}
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
	if !tx.copying && !tx.conn.IsClosed() && !tx.conn.PgConn().IsBusy() && tx.conn.PgConn().TxStatus() == 'T' {
		ctx, cancel := context.WithTimeout(tx.base, pingEvery)
		_, _ = tx.conn.Exec(ctx, `SELECT 1`) // a failure shows at the handler's next statement
		cancel()
	}
	tx.ping.Reset(pingEvery)
}

// run calls the handler of a delivery, or that of the chunk that begins with it, and leaves the transaction with its work, or without any of it, ready for the
// next. The verdict says whether the returned error decides about the message. It does not return when the handler ends
// its goroutine; called again, it deals with that.
func (tx *receiveTx) run(d *delivery, c *chunk) error {
	err := errGoexit
	switch {
	case d.exited && c != nil:
		c.check()
		fallthrough
	case d.exited:
		d.exited = false
	case c != nil:
		err = tx.in.handlers.invokeChunk(c, tx.handOut(d))
	default:
		err = tx.in.handlers.invoke(d, tx.handOut(d))
	}
	tx.takeBack()
	defer tx.mu.Unlock()
	inUse := tx.closeResults()
	switch {
	case tx.conn.IsClosed():
		tx.verdict = txLost
		return err
	case inUse:
		tx.verdict = txOpen
		cut(tx.conn)
		return errors.Join(ErrLeftOpen, err)
	case tx.conn.PgConn().TxStatus() == 'I':
		tx.verdict = txBroken
		tx.in.client.log.Error("sqlq: a HandleTx handler ended the receive transaction past the tx it was given; its batch will be handled again", "endpoint", tx.in.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id)
		return err
	}
	failed := tx.conn.PgConn().TxStatus() == 'E'
	if failed && err == nil {
		err = fmt.Errorf("%w (return it, or undo the statement with a transaction of its own, tx.Begin): %w", ErrSQLErrorIgnored, session.ServerSaid(tx.failure))
	}
	if tx.touched {
		tx.in.solos.learnApart(d.stored.messageType)
	}
	displaced := tx.touched && tx.workers > 0
	if err == nil && !displaced {
		if tx.begun {
			tx.workers++
			tx.worker = d.stored.messageType
		}
		return nil
	}
	if !tx.begun && failed {
		// A statement that rides with the savepoint is prepared before the savepoint is executed, and does not parse.
		tx.verdict = txAborted
		return err
	}
	if tx.borrowed {
		// Whoever still has the connection may write what nothing undoes.
		tx.verdict = txAborted
		cut(tx.conn)
		return err
	}
	if undoErr := tx.undo(); undoErr != nil {
		tx.verdict = txLost
		tx.conn.Close(tx.base)
		return errors.Join(err, undoErr)
	}
	var named *retryAfter
	switch {
	case tx.waited && tx.limited || tx.deadlock && (tx.limited || tx.in.refusals.mayWait([]*delivery{d})):
		tx.verdict = txYields
	case displaced || tx.workers > 0 && !errors.As(err, &named) && !errors.Is(err, ErrUndecodable) && givenBackBy(err) == nil:
		tx.verdict = txAgain
	}
	return err
}

// handOut makes the transaction that a handler is given.
func (tx *receiveTx) handOut(d *delivery) *handlerTx {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.begun, tx.waited, tx.deadlock, tx.failure, tx.verdict, tx.nested = false, false, false, nil, txDecides, 0
	tx.known = tx.in.solos.isApart(d.stored.messageType)
	tx.handed = &handlerTx{receiveTx: tx}
	return tx.handed
}

// takeBack ends what the handler was given, for whatever it has left behind too, and returns with mu. A goroutine of its that
// has a statement under way may finish that, within reason.
func (tx *receiveTx) takeBack() {
	if !tx.mu.TryLock() {
		cancel := time.AfterFunc(leaveWithin, func() {
			ctx, cancel := context.WithTimeout(tx.base, leaveWithin)
			defer cancel()
			_ = tx.conn.PgConn().CancelRequest(ctx)
		})
		end := time.AfterFunc(3*leaveWithin, func() { _ = tx.conn.PgConn().Conn().Close() })
		tx.mu.Lock()
		cancel.Stop()
		end.Stop()
	}
	tx.handed = nil
}

// closeResults closes what the handler has left open, and says whether the connection is in use all the same.
func (tx *receiveTx) closeResults() (inUse bool) {
	if tx.copying {
		return true
	}
	for _, rows := range tx.rows {
		rows.Rows.Close()
		rows.finish()
	}
	for _, b := range tx.batches {
		inUse = inUse || !b.abandon()
	}
	tx.rows, tx.batches = nil, nil
	if inUse = inUse || tx.conn.PgConn().IsBusy(); inUse {
		return true
	}
	for _, name := range tx.prepared {
		ctx, cancel := context.WithTimeout(tx.base, 30*time.Second)
		if tx.conn.Deallocate(ctx, name) != nil {
			tx.replace = true
		}
		cancel()
	}
	tx.prepared = nil
	return false
}

// cut closes a connection that somebody may still be using.
func cut(c *conn) {
	_ = c.PgConn().Conn().Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = c.Close(ctx)
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

// mayFollow says whether another handler may follow in the transaction.
func (tx *receiveTx) mayFollow() bool {
	return !tx.alone && !tx.known && !tx.touched && !tx.borrowed && tx.savepoints < maxSavepoints
}

// learn notes what an error tells of this handler.
func (tx *receiveTx) learn(err error) {
	if err == nil {
		return
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// A wait that ends just as the first of two locks is granted is reported as cancelled by a user.
		tx.waited = tx.waited || pg.Code == session.LockNotAvailable || pg.Code == session.QueryCanceled
		tx.deadlock = tx.deadlock || pg.Code == session.DeadlockDetected
		if tx.failure == nil {
			tx.failure = err
		}
	}
}

// queueEnd takes the transaction back from the handlers: the last savepoint is released, for a row that the transaction locked
// and a subtransaction of it deletes gets a multixact, which must be written, looked up by every fetch that meets the row,
// and frozen; the session is as it was, or, if several handlers may have changed it, the transaction fails; and the planner is
// as settles want it, without a limit on waiting for locks, which is for handlers only.
func (tx *receiveTx) queueEnd(b *pgx.Batch) {
	if tx.ended {
		return
	}
	tx.ended = true
	if tx.savepoint {
		b.Queue(`RELEASE SAVEPOINT sqlq`)
	}
	state := tx.watched.state[tx.look]
	switch {
	case tx.workers > 1:
		store.RequireState(b, state, tx.watched.expected(tx.before, tx.limited), settleSettings, settlePlans, &tx.changed)
		return
	case tx.workers > 0:
		store.ReadState(b, state, &tx.after)
		tx.watched.queueRestore(b, tx.before, tx.conn.Pooled)
	}
	b.Queue(`SELECT `+settleSettings, settlePlans...)
}

// settleSettings selects the settings of a settle, with settlePlans as its parameters.
const settleSettings = session.PlanSettings + `, set_config('lock_timeout', '0', true)`

var settlePlans = []any{session.FetchPlans[0], session.FetchPlans[1], session.FetchPlans[2], session.FetchPlans[3]}

// end is queueEnd in a round trip of its own, where handlers may have changed the role: pgx has the server parse all statements of
// a settle before it runs the first.
func (tx *receiveTx) end(ctx context.Context) error {
	if !tx.leaves() && tx.look <= store.LookTemporary {
		return nil
	}
	b := &pgx.Batch{}
	tx.queueEnd(b)
	return tx.conn.SendBatch(ctx, b).Close()
}
