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
	tx := newReceiveTx(r.run.hardCtx, b.in, r.conn)
	defer tx.stop()
	for i, d := range b.inTx {
		if i > 0 && (time.Since(b.began) > r.run.client.config.HoldLimit/2 || r.run.schedule.isDraining()) {
			b.freed = true
			return
		}
		d.started = true
		b.in.handle(d, tx)
		switch tx.verdict {
		case txDecides:
			d.finished = true
			tx.later = true
		case txYields:
			d.started = false
			b.freed = true
			return
		case txLost:
			d.started = false
			return
		default:
			r.transactionEnded(b, i)
			return
		}
	}
}

// transactionEnded deals with a handler that ended the receive transaction: it fails at once, and what others of the
// batch did is handled again, because nothing says whether it was committed.
func (r *receiver) transactionEnded(b *batch, culprit int) {
	b.ended = true
	in, d := b.in, b.inTx[culprit]
	d.finished = true
	d.err = Unrecoverable(fmt.Errorf("%w: the handler did it past the tx that it was given", ErrTransactionOwned))
	d.outcome = outcome{verdict: fail}
	in.failed(d)
	in.mu.Lock()
	for _, earlier := range b.inTx[:culprit] {
		earlier.finished = false
	}
	in.one += culprit
	in.mu.Unlock()
}

// handleLeasedTx runs a HandleTx handler for a message that was leased before, so that its attempt is counted although
// it may kill the process. Its transaction removes the lease.
func (r *receiver) handleLeasedTx(in *instance, d *delivery) {
	d.started = true
	ctx, cancel := r.timeout()
	defer cancel()
	mine, err := r.beginLeased(ctx, d)
	if err != nil || !mine {
		if err != nil {
			r.disconnect()
			r.run.restart()
			r.giveBackLater(in, d)
		}
		return
	}
	tx := newReceiveTx(r.run.hardCtx, in, r.conn)
	in.handle(d, tx)
	tx.stop()
	if tx.verdict != txDecides {
		r.rollback()
		r.giveBackLater(in, d)
		return
	}
	s := &settlement{client: r.run.client, from: in.from(d)}
	if !d.giveUp {
		s.add(in, d)
		ctx, cancel := r.timeout()
		defer cancel()
		b := &pgx.Batch{}
		queueSettleSettings(b)
		err := r.conn.SendBatch(ctx, b).Close()
		if err == nil {
			err = r.commit(ctx, s)
		}
		if err == nil {
			return
		}
		if connectionLost(err) {
			r.disconnect()
			r.run.restart()
			r.giveBackLater(in, d)
			return
		}
		r.rollback()
		d.err, d.out = fmt.Errorf("settle: %w", err), nil
		if d.outcome = in.endpoint.Retry.decide(d.attempts, d.err, in.client.config.rand()); d.outcome.verdict == retryNow {
			d.outcome = outcome{verdict: retryLater}
		}
		in.failed(d)
	} else {
		r.rollback()
	}
	in.mu.Lock()
	in.settling++
	in.mu.Unlock()
	r.settleLeased(in, []*delivery{d})
}

func (r *receiver) beginLeased(ctx context.Context, d *delivery) (mine bool, err error) {
	if err := r.connect(); err != nil {
		return false, err
	}
	if err := r.exec(ctx, `BEGIN`); err != nil {
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

// giveBackLater has a receiver return the message to its queue once the database answers.
func (r *receiver) giveBackLater(in *instance, d *delivery) {
	d.giveUp = true
	in.mu.Lock()
	in.leases[d.lease] = d
	in.finished = append(in.finished, d)
	in.mu.Unlock()
	r.run.schedule.kick()
}
