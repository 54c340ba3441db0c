package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// txRun is the run of the HandleTx handlers of a held batch, on its receiver's connection.
type txRun struct {
	r     *receiver
	b     *batch
	tx    *receiveTx
	chunk *chunk // whose handler was called and has not returned; nil: there is none
	calls int    // of handlers
}

// handleTx runs the HandleTx handlers of a held batch, one after the other on the connection, until they are done or the
// batch has been held long enough. Those that were not begun are freed by the commit and come again.
func (r *receiver) handleTx(b *batch) {
	if b.in.mostShare > 0 {
		b.gather()
	}
	tx := newReceiveTx(r.run.hardCtx, b.in, r.conn, b.inTx[0])
	b.tx = tx
	defer func() {
		tx.stop()
		if tx.verdict == txBroken {
			r.unclaim(b)
		}
	}()
	run, next := txRun{r: r, b: b, tx: tx}, 0
	despiteExits(func() {
		for more := true; more && next < len(b.inTx); {
			if c := run.chunkAt(next); c != nil {
				more = run.handleChunk(next, c)
				next += len(c.all)
			} else {
				more = run.handle(next)
				next++
			}
		}
	})
}

// handle runs one of them, and says whether the next may follow.
func (run *txRun) handle(n int) bool {
	r, b, tx := run.r, run.b, run.tx
	d := b.inTx[n]
	if n > 0 && !d.exited && run.isLongEnough() {
		b.freed = true
		return false
	}
	if n > 0 && !d.exited && !b.in.solos.mayJoin(d) {
		b.freed = true
		b.in.solos.oneNext()
		return false
	}
	if b.in.handlers.anyOpen() && !d.exited && !b.in.handlers.mayRun(d, time.Now()) {
		b.freed = true
		return true
	}
	if !d.exited {
		b.in.hand.step(d, running)
	}
	run.calls++
	r.handling.Store(d)
	b.in.handlers.handle(d, tx)
	r.handling.Store(nil)
	d.endProbe()
	switch tx.verdict {
	case txDecides:
		b.in.hand.step(d, decided)
		tx.later = true
		b.in.solos.wentAlone(d)
		if b.in.mostShare > 0 {
			b.in.handlers.singles.over(d)
		}
		return run.goOnAfter(n)
	case txYields:
		b.in.hand.step(d, freed)
		b.freed = true
	case txAgain:
		b.in.hand.step(d, freed)
		b.freed = true
		b.in.solos.goAlone(d)
		return run.goOnAfter(n)
	case txLost:
		b.in.hand.step(d, freed)
		b.in.refusals.lostWith(d)
	case txAborted, txOpen:
		run.aborted(n)
	default:
		run.ended(n)
	}
	return false
}

// isLongEnough reports whether no further handler is to begin.
func (run *txRun) isLongEnough() bool {
	in := run.b.in
	return run.calls >= in.endpoint.TxBatch || time.Since(run.b.began) > in.client.config.HoldLimit/2 || in.phase.isDraining()
}

// goOnAfter says whether another handler of the batch may follow the n-th, and if not frees what is left.
func (run *txRun) goOnAfter(n int) bool {
	b, tx := run.b, run.tx
	if tx.mayFollow() {
		return true
	}
	if n+1 < len(b.inTx) {
		b.freed = true
	}
	if tx.known || tx.touched {
		b.in.solos.oneNext()
	}
	return false
}

// ended deals with a handler that ended the receive transaction: it fails at once, and what others of the
// batch did is handled again, because nothing says whether it was committed.
func (run *txRun) ended(culprit int) {
	b := run.b
	d := b.inTx[culprit]
	b.in.handlers.refused(d, errEndedByHandler)
	b.in.hand.step(d, decided)
	b.again(culprit)
}

// aborted deals with a handler that spoilt the transaction before its savepoint stood, or left the connection in
// use. In front of all others, or where it is known to be its fault, it has failed. Otherwise it runs again, and so do those
// whose work it undid, one message a transaction.
func (run *txRun) aborted(culprit int) {
	b := run.b
	run.r.rollback()
	switch d := b.inTx[culprit]; {
	case d.err != nil && b.in.handlers.ctx.Err() != nil:
		b.in.hand.step(d, freed) // the drain has ended it
	case culprit == 0 || b.tx.verdict == txOpen:
		b.in.handlers.refused(d, d.err)
		b.in.hand.step(d, decided)
	default:
		b.in.hand.step(d, freed)
		b.in.solos.goAlone(d)
	}
	b.again(culprit)
}

// again has the first n HandleTx messages of a batch whose transaction is gone handled again, one at a time.
func (b *batch) again(n int) {
	b.ended = true
	b.in.solos.goAlone(b.inTx[:n]...)
	b.in.hand.undo(b.inTx[:n])
}

// errEndedByHandler is the error of a handler that ended the receive transaction.
var errEndedByHandler = Unrecoverable(fmt.Errorf("%w: the handler ended it past the tx that it was given; return nil or an error instead", ErrTransactionOwned))

// handleLeasedTx runs a HandleTx handler for a message that was leased before, so that its attempt is counted although
// it may kill the process. Its transaction removes the lease.
func (r *receiver) handleLeasedTx(in *instance, d *delivery) {
	if !in.handlers.mayRun(d, time.Now()) {
		in.hand.giveBackLined([]*delivery{d})
		in.run.dispatcher.kick()
		return
	}
	leased := leasedTx{l: &r.link, d: d}
	defer d.endProbe()
	if !in.hand.beginLined(d) {
		return // the drain has given it back
	}
	known := in.handlers.decided(d)
	if known {
		in.client.config.observing.decided(d)
	} else {
		if !in.handlers.apart.begin(d, func() { settleFinished(&r.link) }) {
			if in.hand.endLeasedTx(d) {
				in.hand.settleLater(d)
				in.run.dispatcher.kick()
			}
			return
		}
		defer in.handlers.apart.end(d)
	}
	ctx, cancel := r.timeout()
	defer cancel()
	switch mine, err := leased.begin(ctx); {
	case err != nil:
		if r.giveUp(); in.hand.endLeasedTx(d) {
			leased.giveBack(in)
		}
		return
	case !mine:
		if in.hand.endLeasedTx(d) {
			in.hand.forget(d, freed)
		}
		return
	}
	tx := newReceiveTx(r.run.hardCtx, in, r.conn, d)
	if !known {
		r.handling.Store(d)
		despiteExits(func() { in.handlers.attempt(d, tx) })
		r.handling.Store(nil)
	}
	tx.stop()
	mine := in.hand.endLeasedTx(d)
	switch v := tx.verdict; {
	case v != txDecides && v != txBroken && v != txAborted && v != txOpen:
		in.refusals.lostWith(d)
		r.rollback()
		if mine {
			leased.giveBack(in)
		}
		return
	case !mine: // the drain has given it back
		r.rollback()
		in.run.dispatcher.kick()
		return
	case v == txDecides && d.outcome.verdict != giveBack:
		leased.commit(in, tx)
		return
	case v == txBroken:
		in.handlers.refused(d, errEndedByHandler)
	case v == txAborted || v == txOpen:
		if d.outcome.verdict != giveBack {
			in.handlers.refused(d, d.err)
		}
	}
	r.rollback()
	settleNow(&r.link, in, d, nil)
}

// leasedTx is the end of a leased delivery whose HandleTx handler writes in the transaction that settles it; and the setback of one
// whose transaction was lost. Its work is gone with that, so the message goes back.
type leasedTx struct {
	l *link
	d *delivery
}

// begin begins a transaction that locks the delivery's lease, and says whether the lease is still the instance's.
func (t leasedTx) begin(ctx context.Context) (mine bool, err error) {
	l, d := t.l, t.d
	if err := l.connect(); err != nil {
		return false, err
	}
	if err := l.conn.BeginReceive(ctx); err != nil {
		return false, err
	}
	leases, err := l.run.client.store.Leases.Lock(ctx, l.conn, d.leasedBy, []int64{d.lease})
	if err != nil {
		return false, err
	}
	if len(leases) == 0 {
		return false, l.exec(ctx, `ROLLBACK`)
	}
	return true, nil
}

// commit settles the delivery in the transaction in which its handler has written.
func (t leasedTx) commit(in *instance, tx *receiveTx) {
	l, d := t.l, t.d
	s := newSettlement(in, d.custody, d.custody.from(in, d))
	s.add(d)
	ctx, cancel := l.timeout()
	defer cancel()
	b := &pgx.Batch{}
	tx.queueEnd(b)
	err := l.conn.SendBatch(ctx, b).Close() // apart from the settle: see receiveTx.end
	if err == nil {
		err = l.commit(ctx, in, s)
	}
	if err == nil {
		in.hand.forget(d, settled)
		tx.noteChange()
		l.leaveSession(tx)
		return
	}
	if refusal, _ := l.judge(in, t, []*delivery{d}, err); refusal != nil {
		settleNow(l, in, d, refusal)
	}
}

// giveBack has a receiver return the message to its queue once the database answers.
func (t leasedTx) giveBack(in *instance) {
	t.d.outcome = outcome{verdict: giveBack}
	in.hand.settleLater(t.d)
	in.run.dispatcher.kick()
}

func (t leasedTx) isPatient(in *instance, ds []*delivery) bool { return in.refusals.mayWait(ds) }

// putOff gives up the connection, and with it what the handler has done.
func (t leasedTx) putOff(in *instance, _ []*delivery) {
	t.l.giveUp()
	t.giveBack(in)
}

func (t leasedTx) disconnected(in *instance, ds []*delivery, _ error) { t.putOff(in, ds) }
