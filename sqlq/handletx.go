package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// handleTx runs the HandleTx handlers of a held batch, one after the other on the connection, until they are done or the
// batch has been held long enough. Those that were not begun are freed by the commit and come again.
func (r *receiver) handleTx(b *batch) {
	tx := newReceiveTx(r.run.hardCtx, b.in, r.conn, b.inTx[0])
	b.tx = tx
	defer func() {
		tx.stop()
		if tx.verdict == txBroken {
			r.unclaim(b)
		}
	}()
	next := 0
	despiteExits(func() {
		for next < len(b.inTx) && r.handleNextTx(b, tx, next) {
			next++
		}
	})
}

// handleNextTx runs one handler of a held batch, and says whether the next may follow.
func (r *receiver) handleNextTx(b *batch, tx *receiveTx, n int) bool {
	d := b.inTx[n]
	if n > 0 && !d.exited && (time.Since(b.began) > r.run.client.config.HoldLimit/2 || r.run.schedule.isDraining()) {
		b.freed = true
		return false
	}
	if n > 0 && !d.exited && !b.in.mayJoin(d) {
		b.freed = true
		b.in.oneNext()
		return false
	}
	if b.in.opened.Load() > 0 && !d.exited && !b.in.mayRun(d, time.Now()) {
		b.freed = true
		return true
	}
	d.started = true
	r.handling.Store(d)
	b.in.handle(d, tx)
	r.handling.Store(nil)
	d.endProbe()
	switch tx.verdict {
	case txDecides:
		d.finished = true
		tx.later = true
		b.in.wentAlone(d)
		return r.goOnAfter(b, tx, n)
	case txYields:
		d.started = false
		b.freed = true
	case txAgain:
		d.started = false
		b.freed = true
		b.in.goAlone(d)
		return r.goOnAfter(b, tx, n)
	case txLost:
		d.started = false
		b.in.lostWith(d)
	case txAborted, txOpen:
		r.transactionAborted(b, n)
	default:
		r.transactionEnded(b, n)
	}
	return false
}

// goOnAfter says whether another handler of the batch may follow the n-th, and if not frees what is left.
func (r *receiver) goOnAfter(b *batch, tx *receiveTx, n int) bool {
	if tx.mayFollow() {
		return true
	}
	if n+1 < len(b.inTx) {
		b.freed = true
	}
	if tx.known || tx.touched {
		b.in.oneNext()
	}
	return false
}

// transactionEnded deals with a handler that ended the receive transaction: it fails at once, and what others of the
// batch did is handled again, because nothing says whether it was committed.
func (r *receiver) transactionEnded(b *batch, culprit int) {
	d := b.inTx[culprit]
	d.finished = true
	b.in.refused(d, errEndedByHandler)
	b.again(culprit)
}

// transactionAborted deals with a handler that spoilt the transaction before its savepoint stood, or left the connection in
// use. In front of all others, or where it is known to be its fault, it has failed. Otherwise it runs again, and so do those
// whose work it undid, one message a transaction.
func (r *receiver) transactionAborted(b *batch, culprit int) {
	r.rollback()
	switch d := b.inTx[culprit]; {
	case d.err != nil && b.in.ctx.Err() != nil:
		d.started = false // the drain has ended it
	case culprit == 0 || b.tx.verdict == txOpen:
		d.finished = true
		b.in.refused(d, d.err)
	default:
		d.started = false
		b.in.goAlone(d)
	}
	b.again(culprit)
}

// again has the first n HandleTx messages of a batch whose transaction is gone handled again, one at a time.
func (b *batch) again(n int) {
	b.ended = true
	b.in.goAlone(b.inTx[:n]...)
	b.in.mu.Lock()
	defer b.in.mu.Unlock()
	for _, d := range b.inTx[:n] {
		d.finished = false
	}
}

// errEndedByHandler is the error of a handler that ended the receive transaction.
var errEndedByHandler = Unrecoverable(fmt.Errorf("%w: the handler ended it past the tx that it was given; return nil or an error instead", ErrTransactionOwned))

// handleLeasedTx runs a HandleTx handler for a message that was leased before, so that its attempt is counted although
// it may kill the process. Its transaction removes the lease.
func (r *receiver) handleLeasedTx(in *instance, d *delivery) {
	if !in.mayRun(d, time.Now()) {
		r.giveBackLater(in, d)
		return
	}
	defer d.endProbe()
	d.started = true
	decided := in.decided(d)
	if decided {
		in.client.config.observing.decided(d)
	} else {
		if !in.apart(d, r.settleFinished) {
			in.settleLater(d)
			return
		}
		defer in.rejoin(d)
	}
	ctx, cancel := r.timeout()
	defer cancel()
	switch mine, err := r.beginLeased(ctx, d); {
	case err != nil:
		r.loseLeased(in, d)
		return
	case !mine:
		in.forget(d)
		return
	}
	tx := newReceiveTx(r.run.hardCtx, in, r.conn, d)
	if !decided {
		r.handling.Store(d)
		despiteExits(func() { in.attempt(d, tx) })
		r.handling.Store(nil)
	}
	tx.stop()
	in.mu.Lock()
	givenBack := d.giveUp
	d.finished = true // the drain leaves it alone from here on
	in.mu.Unlock()
	switch tx.verdict {
	case txDecides:
		if !givenBack {
			r.commitLeased(in, d, tx)
			return
		}
	case txBroken:
		in.refused(d, errEndedByHandler)
	case txAborted, txOpen:
		if !givenBack {
			in.refused(d, d.err)
		}
	default:
		in.lostWith(d)
		r.rollback()
		r.giveBackLater(in, d)
		return
	}
	r.rollback()
	r.settleNow(in, d)
}

// beginLeased begins a transaction that locks a delivery's lease, and says whether the lease is still the instance's.
func (r *receiver) beginLeased(ctx context.Context, d *delivery) (mine bool, err error) {
	if err := r.connect(); err != nil {
		return false, err
	}
	if err := r.conn.begin(ctx); err != nil {
		return false, err
	}
	leases, err := r.run.client.store.LockLeases(ctx, r.conn, d.leasedBy, []int64{d.lease})
	if err != nil {
		return false, err
	}
	if len(leases) == 0 {
		return false, r.exec(ctx, `ROLLBACK`)
	}
	return true, nil
}

// commitLeased settles a leased delivery in the transaction in which its HandleTx handler has written.
func (r *receiver) commitLeased(in *instance, d *delivery, tx *receiveTx) {
	s := newSettlement(in, in.from(d))
	s.add(in, d)
	ctx, cancel := r.timeout()
	defer cancel()
	b := &pgx.Batch{}
	tx.queueEnd(b)
	err := r.conn.SendBatch(ctx, b).Close() // apart from the settle: see receiveTx.end
	if err == nil {
		err = r.commit(ctx, in, s)
	}
	switch {
	case err == nil:
		in.forget(d)
		tx.noteChange()
		r.leaveSession(tx)
	case connectionLost(err) || serverTrouble(err) && in.mayWait([]*delivery{d}):
		r.loseLeased(in, d)
	default:
		r.rollback()
		in.refused(d, in.unsettled(d, err))
		r.settleNow(in, d)
	}
}

// loseLeased gives up the connection, and with it what a leased delivery's HandleTx handler has done.
func (r *receiver) loseLeased(in *instance, d *delivery) {
	r.disconnect()
	r.run.restart()
	r.giveBackLater(in, d)
}

// forget drops a leased delivery that was settled, or is another's.
func (in *instance) forget(d *delivery) {
	in.mu.Lock()
	delete(in.leases, d.lease)
	in.mu.Unlock()
	in.settled(d)
}

// giveBackLater has a receiver return the message to its queue once the database answers.
func (r *receiver) giveBackLater(in *instance, d *delivery) {
	in.giveUp(d)
	in.settleLater(d)
}

// settleLater has a leased delivery, whose end is known, settled by the next receiver that is free.
func (in *instance) settleLater(d *delivery) {
	in.mu.Lock()
	in.finished = append(in.finished, d)
	in.mu.Unlock()
	in.run.schedule.kick()
}
