package sqlq

import (
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// settlementOf ends a held batch as far as it is: what is finished is settled, what runs is leased, what has not begun
// is freed by the commit.
func (r *receiver) settlementOf(b *batch) *settlement {
	in := b.in
	s := newSettlement(in, b.custody, b.custody.from(in, nil))
	s.by = in.number()
	s.holds = len(b.inTx) == 0 // a HandleTx handler had the connection: who knows what it did
	if s.holds {
		s.rows = make([]pgtype.TID, 0, len(b.all))
	}
	s.running = in.cut(b)
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range s.running {
		s.attempts = append(s.attempts, max(0, d.made()-1)) // those that have ended
	}
	for _, d := range b.all {
		switch d.state {
		case decided:
			s.add(d)
		case leasing, leasingDecided:
			s.ride(d, goesOn)
		default:
			s.ride(d, notHandled)
		}
	}
	return s
}

// settledBatch takes in how the settle of a held batch went.
func (r *receiver) settledBatch(b *batch, s *settlement, committed bool, err error) {
	in := b.in
	if committed {
		r.trouble.Reset()
		in.count(s)
		in.leased(s.running, s.leases, s.by)
		if b.freed {
			in.freed(b)
			switch {
			case r.run.schedule.isDraining():
				in.bell.CallOthers()
			case !in.hasRoom():
				in.bell.Overflow()
			}
		}
		r.run.client.wakes.Wake(s.channels...)
		return
	}
	refusal, _ := r.judge(in, heldBatch{r, b}, in.finishedOf(b), err)
	if refusal == nil {
		return
	}
	// The server refused something: a queue to send to is gone, say, or a deferred constraint of a HandleTx handler was
	// violated. Nothing tells whose fault it is. Other receivers are to leave the messages alone until each is settled: they
	// would have the handlers run again at once.
	in.leased(s.running, nil, 0)
	finished := in.finishedOf(b)
	in.reserve(finished)
	changed := b.tx != nil && b.tx.changed
	for _, d := range s.running { // perhaps it was the lease that was refused: not again while the handler runs
		pause := firstRefusalPause
		if !changed {
			pause = in.refusedAgain(d, refusal)
		}
		in.setAside(d.seq, pause)
	}
	if changed {
		r.run.client.log.Info("sqlq: HandleTx handlers have changed settings of the session, or left temporary objects, by a function or trigger; the messages of their batch run again one by one", "endpoint", in.endpoint.Name)
	} else {
		r.sayRefused(in, refusal)
	}
	r.settleOneByOne(b, finished, refusal)
}

// sayRefused says of a batch that the server refused to settle it: now and then, and how many others there were.
func (r *receiver) sayRefused(in *instance, err error) {
	in.mu.Lock()
	others, say := in.refusals.batches.may(time.Now())
	in.mu.Unlock()
	if say {
		r.run.client.log.Warn("sqlq: cannot settle a batch, settling its messages one by one", "endpoint", in.endpoint.Name, "others", others, "err", loggedError(err))
	}
}

// settleOneByOne settles the finished deliveries of a batch whose transaction is gone, each in its own. They are reserved, and
// not so any more when it returns. Successful HandleTx handlers lost their work: they run again, one message a transaction; in
// a batch of one that fails the message.
func (r *receiver) settleOneByOne(b *batch, finished []*delivery, refused error) {
	in, again := b.in, []*delivery(nil)
	s := settler{r: r, in: in, custody: b.custody}
	for i, d := range finished {
		switch {
		case d.handler == nil || !d.handler.inTx || d.outcome.verdict != complete:
			s.settle(finished[i : i+1])
		case len(b.all) == 1 && refused != nil:
			s.refused(d, refused)
		default:
			again = append(again, d)
			in.step(d, freed)
		}
	}
	s.end()
	in.goAlone(again...)
	in.unreserve(finished)
	in.freed(b)
}

// finishedOf returns the deliveries of a batch that have their verdict and are still the batch's to settle.
func (in *instance) finishedOf(b *batch) (finished []*delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range b.all {
		if d.state == decided && d.outcome.verdict != giveBack {
			finished = append(finished, d)
		}
	}
	return finished
}

// abandon gives a batch up together with its connection. Its messages are free again, as soon as the server has noticed.
func (r *receiver) abandon(b *batch, err error) {
	in, seq := b.in, b.all[0].seq // release empties the batch
	r.release(b)
	in.lookAgain(seq)
	r.lost(fmt.Errorf("settle queue %q: %w", b.in.endpoint.Name, err))
}

// release leaves the messages of a batch whose transaction is gone to whoever fetches them next.
func (r *receiver) release(b *batch) {
	b.in.leased(b.in.cut(b), nil, 0)
	b.in.freed(b)
	b.in.release(b, freed)
}

// lookAgainAfter is when an instance looks again for messages whose connection was lost. The first look may come while the
// server still holds them for the session that ends, and nobody notifies when it has ended. The last comes when the server has
// given up a client that it hears nothing of (idle_in_transaction_session_timeout).
var lookAgainAfter = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 12 * time.Second}

// lookAgain has the instance look for messages from seq on that a lost connection held, or may have held.
func (in *instance) lookAgain(seq int64) {
	for _, after := range lookAgainAfter {
		in.run.life.after(after, func() { in.freedFrom(seq) })
	}
}

// settleEnded settles a batch whose transaction a HandleTx handler has ended or spoilt. Its rows are free, those too whose
// handlers still run: these are leased at once, in a transaction of its own, unless others have been faster.
func (r *receiver) settleEnded(b *batch) {
	in := b.in
	cut := in.cut(b)
	mine := append(in.finishedOf(b), cut...)
	in.reserve(mine)
	leases, by, err := r.leaseAnew(in, cut)
	if err != nil {
		r.run.client.log.Warn("sqlq: cannot lease messages whose handlers run, and whose transaction another handler has ended; others may handle them too",
			"endpoint", in.endpoint.Name, "messages", len(cut), "err", loggedError(err))
		if r.rollback(); session.Lost(err) {
			r.giveUpConnection()
		}
	}
	in.leased(cut, leases, by)
	finished := in.finishedOf(b)
	in.reserve(finished)
	r.settleOneByOne(b, finished, nil)
	in.unreserve(mine)
	in.release(b, settled)
}

// leaseAnew leases deliveries that run and that nothing holds any more, if they are free. It returns their leases, by seq.
func (r *receiver) leaseAnew(in *instance, ds []*delivery) (leases map[int64]int64, by int32, err error) {
	if len(ds) == 0 {
		return nil, 0, nil
	}
	if err := r.connect(); err != nil {
		return nil, 0, err
	}
	ctx, cancel := r.timeout()
	defer cancel()
	if err := r.conn.BeginReceive(ctx); err != nil {
		return nil, 0, err
	}
	seqs := make([]int64, len(ds))
	for i, d := range ds {
		seqs[i] = d.seq
	}
	free, err := r.run.client.store.Ready.Relock(ctx, r.conn, in.endpoint.Name, seqs)
	if err != nil {
		return nil, 0, err
	}
	c := heldCustody{}
	s := newSettlement(in, c, c.from(in, nil))
	s.by = in.number()
	for _, d := range ds {
		mine := slices.Contains(free, d.seq)
		if mine && d.claim == store.Claimed {
			if mine, err = r.claimAnew(ctx, in, d); err != nil {
				return nil, 0, err
			}
		}
		if mine {
			s.running, s.attempts = append(s.running, d), append(s.attempts, max(0, d.made()-1))
			s.ride(d, goesOn)
		}
	}
	if err := r.commit(ctx, in, s); err != nil {
		return nil, 0, err
	}
	return s.leases, s.by, nil
}

// freed has the instance look for messages of a batch that are free again: whoever looked meanwhile found them locked.
func (in *instance) freed(b *batch) {
	in.mu.Lock()
	in.start.freedRows(b)
	in.mu.Unlock()
	in.wake()
}

// lookFromLow has the instance go through the queue again from its left end: what fetches left out may be handled now.
func (in *instance) lookFromLow() {
	in.mu.Lock()
	in.start.rewind()
	in.mu.Unlock()
	in.wake()
}

func (in *instance) freedFrom(seq int64) {
	in.mu.Lock()
	in.start.freed(seq)
	in.mu.Unlock()
	in.wake()
}
