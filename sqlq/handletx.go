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
	if !d.exited {
		b.in.step(d, running)
	}
	r.handling.Store(d)
	b.in.handle(d, tx)
	r.handling.Store(nil)
	d.endProbe()
	switch tx.verdict {
	case txDecides:
		b.in.step(d, decided)
		tx.later = true
		b.in.wentAlone(d)
		return r.goOnAfter(b, tx, n)
	case txYields:
		b.in.step(d, freed)
		b.freed = true
	case txAgain:
		b.in.step(d, freed)
		b.freed = true
		b.in.goAlone(d)
		return r.goOnAfter(b, tx, n)
	case txLost:
		b.in.step(d, freed)
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
	b.in.refused(d, errEndedByHandler)
	b.in.step(d, decided)
	b.again(culprit)
}

// transactionAborted deals with a handler that spoilt the transaction before its savepoint stood, or left the connection in
// use. In front of all others, or where it is known to be its fault, it has failed. Otherwise it runs again, and so do those
// whose work it undid, one message a transaction.
func (r *receiver) transactionAborted(b *batch, culprit int) {
	r.rollback()
	switch d := b.inTx[culprit]; {
	case d.err != nil && b.in.ctx.Err() != nil:
		b.in.step(d, freed) // the drain has ended it
	case culprit == 0 || b.tx.verdict == txOpen:
		b.in.refused(d, d.err)
		b.in.step(d, decided)
	default:
		b.in.step(d, freed)
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
		if d.state == decided {
			b.in.move(d, freed)
		}
	}
}

// errEndedByHandler is the error of a handler that ended the receive transaction.
var errEndedByHandler = Unrecoverable(fmt.Errorf("%w: the handler ended it past the tx that it was given; return nil or an error instead", ErrTransactionOwned))

// handleLeasedTx runs a HandleTx handler for a message that was leased before, so that its attempt is counted although
// it may kill the process. Its transaction removes the lease.
func (r *receiver) handleLeasedTx(in *instance, d *delivery) {
	if !in.mayRun(d, time.Now()) {
		r.giveBack(in, []*delivery{d})
		return
	}
	defer d.endProbe()
	if !in.beginLined(d) {
		return // the drain has given it back
	}
	known := in.decided(d)
	if known {
		in.client.config.observing.decided(d)
	} else {
		if !in.apart(d, r.settleFinished) {
			if in.endLeasedTx(d) {
				in.settleLater(d)
			}
			return
		}
		defer in.rejoin(d)
	}
	ctx, cancel := r.timeout()
	defer cancel()
	switch mine, err := r.beginLeased(ctx, d); {
	case err != nil:
		if r.giveUpConnection(); in.endLeasedTx(d) {
			r.giveBackLater(in, d)
		}
		return
	case !mine:
		if in.endLeasedTx(d) {
			in.forget(d, freed)
		}
		return
	}
	tx := newReceiveTx(r.run.hardCtx, in, r.conn, d)
	if !known {
		r.handling.Store(d)
		despiteExits(func() { in.attempt(d, tx) })
		r.handling.Store(nil)
	}
	tx.stop()
	mine := in.endLeasedTx(d)
	switch v := tx.verdict; {
	case v != txDecides && v != txBroken && v != txAborted && v != txOpen:
		in.lostWith(d)
		r.rollback()
		if mine {
			r.giveBackLater(in, d)
		}
		return
	case !mine: // the drain has given it back
		r.rollback()
		in.run.schedule.kick()
		return
	case v == txDecides && d.outcome.verdict != giveBack:
		r.commitLeased(in, d, tx)
		return
	case v == txBroken:
		in.refused(d, errEndedByHandler)
	case v == txAborted || v == txOpen:
		if d.outcome.verdict != giveBack {
			in.refused(d, d.err)
		}
	}
	r.rollback()
	r.settleNow(in, d, nil)
}

// beginLined begins a message that waited for its turn, and says whether it is still to be handled.
func (in *instance) beginLined(d *delivery) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return d.state == lined && in.move(d, running)
}

// endLeasedTx notes that the handler of a leased message has ended, and says whether the message is the caller's to settle: not if the
// drain has taken it back.
func (in *instance) endLeasedTx(d *delivery) (mine bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch d.state {
	case running:
		return in.move(d, decided)
	case recalled:
		in.move(d, decided)
	case returning:
		in.move(d, settling)
	case lost:
		in.move(d, freed)
	}
	return false
}

// step is move for who does not have the mutex.
func (in *instance) step(d *delivery, to deliveryState) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.move(d, to)
}

// beginLeased begins a transaction that locks a delivery's lease, and says whether the lease is still the instance's.
func (r *receiver) beginLeased(ctx context.Context, d *delivery) (mine bool, err error) {
	if err := r.connect(); err != nil {
		return false, err
	}
	if err := r.conn.BeginReceive(ctx); err != nil {
		return false, err
	}
	leases, err := r.run.client.store.Leases.Lock(ctx, r.conn, d.leasedBy, []int64{d.lease})
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
	s := newSettlement(in, d.custody, d.custody.from(in, d))
	s.add(d)
	ctx, cancel := r.timeout()
	defer cancel()
	b := &pgx.Batch{}
	tx.queueEnd(b)
	err := r.conn.SendBatch(ctx, b).Close() // apart from the settle: see receiveTx.end
	if err == nil {
		err = r.commit(ctx, in, s)
	}
	if err == nil {
		in.forget(d, settled)
		tx.noteChange()
		r.leaveSession(tx)
		return
	}
	if refusal, _ := r.judge(in, leasedTx{r: r}, []*delivery{d}, err); refusal != nil {
		r.settleNow(in, d, refusal)
	}
}

// loseLeased gives up the connection, and with it what a leased delivery's HandleTx handler has done.
func (r *receiver) loseLeased(in *instance, d *delivery) {
	r.giveUpConnection()
	r.giveBackLater(in, d)
}

// giveUpConnection gives the connection up without a word: another one may reach another server.
func (r *receiver) giveUpConnection() {
	r.disconnect()
	r.run.restart()
}

// forget drops a leased delivery that was settled, or is another's.
func (in *instance) forget(d *delivery, as deliveryState) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.move(d, as)
	d.custody.dismiss(in, d)
}

// giveBack returns leased deliveries that will not be handled here to their queue.
func (r *receiver) giveBack(in *instance, ds []*delivery) {
	in.mu.Lock()
	for _, d := range ds {
		if d.state == lined { // else the drain has done it
			in.returnUnbegun(d)
		}
	}
	in.mu.Unlock()
	in.run.schedule.kick()
}

// giveBackLater has a receiver return a message that is not handled after all to its queue once the database answers.
func (r *receiver) giveBackLater(in *instance, d *delivery) {
	d.outcome = outcome{verdict: giveBack}
	in.settleLater(d)
}

// settleLater has a leased delivery, whose end is known, settled by the next receiver that is free.
func (in *instance) settleLater(d *delivery) {
	in.mu.Lock()
	in.queueDecided(d)
	in.mu.Unlock()
	in.run.schedule.kick()
}
