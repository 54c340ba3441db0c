package sqlq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// settleFinished settles the leased messages that are finished, of all instances.
func (r *receiver) settleFinished() {
	for _, in := range r.run.instances {
		in.mu.Lock()
		ds := in.takeFinished()
		in.mu.Unlock()
		if len(ds) > 0 {
			r.settleLeased(in, ds)
		}
	}
}

// settleLeased settles deliveries that were leased: first those together, and when the server refuses that, each by
// itself. Without the database they are kept for later.
func (r *receiver) settleLeased(in *instance, ds []*delivery) {
	if in.endpoint.AtMostOnce {
		r.settleRemoved(in, ds)
		return
	}
	ctx, cancel := r.timeout()
	defer cancel()
	byNumber := map[int32][]*delivery{} // an instance that was thought dead goes on under another number
	for _, d := range ds {
		byNumber[d.leasedBy] = append(byNumber[d.leasedBy], d)
	}
	for _, group := range byNumber {
		err := r.connect()
		if err == nil {
			err = r.settleLeases(ctx, in, group)
		}
		if serverTrouble(err) && in.mayWait(group) {
			r.rollback()
			in.settledLeases(group, false)
			r.troubled(in, err)
			continue
		}
		if err != nil && !connectionLost(err) {
			group, err = r.settleEachLease(ctx, in, group)
		}
		in.settledLeases(group, err == nil)
		if err != nil {
			r.lost(fmt.Errorf("settle leased messages of queue %q: %w", in.endpoint.Name, err))
		}
	}
}

// settleEachLease settles leased deliveries each by itself, so that those that the server refuses hold up no others. The only
// error that it returns is that the connection was lost, with the deliveries that are left.
func (r *receiver) settleEachLease(ctx context.Context, in *instance, ds []*delivery) (left []*delivery, err error) {
	for i, d := range ds {
		r.rollback()
		if err := r.settleLease(ctx, in, d); err != nil {
			return ds[i:], err
		}
		in.settledLeases(ds[i:i+1], true)
	}
	return nil, nil
}

// settleLease settles one leased delivery; when the server refuses it, as a failure. When it refuses that too the message
// waits among the delayed, or if need be leased: then the delivery is settled again.
func (r *receiver) settleLease(ctx context.Context, in *instance, d *delivery) error {
	err := r.settleLeases(ctx, in, []*delivery{d})
	if err == nil || connectionLost(err) {
		return err
	}
	r.rollback()
	in.refused(d, in.unsettled(d, err))
	err = r.settleLeases(ctx, in, []*delivery{d})
	if err == nil || connectionLost(err) {
		return err
	}
	r.rollback()
	pause, decided, failure := in.refusedAgain(d, err), d.outcome, d.err
	d.wait(pause, refusalOf(err))
	err = r.settleLeases(ctx, in, []*delivery{d})
	if err == nil || connectionLost(err) {
		return err
	}
	r.rollback()
	d.outcome, d.err = decided, failure
	in.keep(d, pause)
	return nil
}

// settleLeases settles leased deliveries of one instance number in a transaction. Those whose lease is gone were given
// to others while this process was thought dead: nothing of them is stored.
func (r *receiver) settleLeases(ctx context.Context, in *instance, ds []*delivery) error {
	leases := make([]int64, len(ds))
	for i, d := range ds {
		leases[i] = d.lease
	}
	if err := r.conn.begin(ctx); err != nil {
		return err
	}
	mine, err := r.run.client.store.LockLeases(ctx, r.conn, ds[0].leasedBy, leases)
	if err != nil {
		return err
	}
	ours := make(map[int64]bool, len(mine))
	for _, lease := range mine {
		ours[lease] = true
	}
	s := newSettlement(in, in.from(ds[0]))
	var back []int64
	for _, d := range ds {
		switch {
		case !ours[d.lease]:
			r.run.client.log.Warn("sqlq: a handler finished after its message was given to another receiver", "endpoint", in.endpoint.Name, "message", d.stored.id)
		case d.goesBack():
			back = append(back, d.lease)
			s.claimed(d)
		default:
			s.add(in, d)
		}
	}
	if len(back) > 0 {
		b := &pgx.Batch{}
		r.run.client.store.GiveBack(b, in.endpoint.Name, ds[0].leasedBy, back, s.notify)
		if err := r.conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
	}
	return r.commit(ctx, in, s)
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

// settleNow settles a leased delivery that has just ended on this connection; it does not wait for the next receiver.
func (r *receiver) settleNow(in *instance, d *delivery) {
	in.mu.Lock()
	in.move(d, settling)
	in.mu.Unlock()
	r.settleLeased(in, []*delivery{d})
}
