package sqlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// settlementOf ends a held batch as far as it is: what is finished is settled, what runs is leased, what has not begun
// is freed by the commit.
func (r *receiver) settlementOf(b *batch) *settlement {
	in := b.in
	s := newSettlement(in, store.From{Queue: in.endpoint.Name})
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
		if d.state == decided {
			s.add(in, d)
		} else {
			s.claimed(d)
		}
	}
	return s
}

// settledBatch takes in how the settle of a held batch went.
func (r *receiver) settledBatch(ctx context.Context, b *batch, s *settlement, settled bool, err error) {
	in := b.in
	switch {
	case settled:
		r.trouble.reset()
		in.count(s)
		in.leased(s.running, s.leases, s.by)
		if b.freed {
			in.freed(b)
			switch {
			case r.run.schedule.isDraining():
				r.run.wakeOthers(in)
			case !in.hasRoom():
				r.run.listener.overflow(in)
			}
		}
		r.run.client.wake(s.channels...)
		return
	case connectionLost(err):
		// Whether it was committed is not known. If it was not, the messages are free again and will be handled again.
		r.abandon(b, err)
		return
	case serverTrouble(err) && in.mayWait(in.finishedOf(b)):
		r.rollback()
		r.release(b)
		r.troubled(in, err)
		return
	}
	r.trouble.reset()
	// The server refused something: a queue to send to is gone, say, or a deferred constraint of a HandleTx handler was
	// violated. Nothing tells whose fault it is. Other receivers are to leave the messages alone until each is settled: they
	// would have the handlers run again at once.
	in.leased(s.running, nil, 0)
	finished := in.finishedOf(b)
	in.reserve(finished)
	r.rollback()
	changed := b.tx != nil && b.tx.changed
	for _, d := range s.running { // perhaps it was the lease that was refused: not again while the handler runs
		pause := firstRefusalPause
		if !changed {
			pause = in.refusedAgain(d, err)
		}
		in.setAside(d.seq, pause)
	}
	if changed {
		r.run.client.log.Info("sqlq: HandleTx handlers have changed settings of the session, or left temporary objects, by a function or trigger; the messages of their batch run again one by one", "endpoint", in.endpoint.Name)
	} else {
		r.sayRefused(in, err)
	}
	r.settleOneByOne(b, finished, err)
}

// lookAgainAfter is when an instance looks again for messages whose connection was lost. The first look may come while the
// server still holds them for the session that ends, and nobody notifies when it has ended. The last comes when the server has
// given up a client that it hears nothing of (idle_in_transaction_session_timeout).
var lookAgainAfter = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 12 * time.Second}

// lookAgain has the instance look for messages from seq on that a lost connection held, or may have held.
func (in *instance) lookAgain(seq int64) {
	for _, after := range lookAgainAfter {
		time.AfterFunc(after, func() { in.freedFrom(seq) })
	}
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

// troubled waits before a settle is tried again that the server could not do for reasons of its own. That is nobody's
// failure, and no attempt is counted.
func (r *receiver) troubled(in *instance, err error) {
	r.run.client.log.Warn("sqlq: the server cannot settle messages now, trying again", "endpoint", in.endpoint.Name, "err", err)
	r.trouble.wait(r.run.hardCtx)
}

// maxTroubled is how often the server may be in trouble over the settle of a message. Then the message may be the reason: it
// fails by itself.
const maxTroubled = 10

// mayWait says whether none of the deliveries has had the server in trouble too often, and notes that it has once more.
func (in *instance) mayWait(ds []*delivery) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.troubles) > 10_000 {
		clear(in.troubles)
	}
	may := true
	for _, d := range ds {
		in.troubles[d.stored.id]++
		may = may && in.troubles[d.stored.id] <= maxTroubled
	}
	return may
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
	for _, d := range finished {
		switch {
		case d.handler == nil || !d.handler.inTx || d.outcome.verdict != complete:
			r.settleAlone(in, d, nil)
		case len(b.all) == 1:
			r.settleAlone(in, d, refused)
		default:
			again = append(again, d)
		}
	}
	in.goAlone(again...)
	in.unreserve(finished)
	in.freed(b)
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

// settleAlone settles one delivery whose batch was rolled back, if nobody took it meanwhile. With refused, or when the
// server refuses this settle too, that is the message's own failure. When it refuses even that the message waits.
func (r *receiver) settleAlone(in *instance, d *delivery, refused error) {
	if refused == nil {
		refused = r.tryAlone(in, d)
	}
	if refused != nil && refused != errTaken {
		in.refused(d, in.unsettled(d, refused))
		refused = r.tryAlone(in, d)
	}
	switch refused {
	case nil:
		return
	case errTaken:
		if d.outcome.verdict != complete { // perhaps by another receiver of this process: not at once again
			in.setAside(d.seq, firstRefusalPause)
		}
		return
	}
	pause := in.refusedAgain(d, refused)
	d.wait(pause, refusalOf(refused))
	if r.tryAlone(in, d) != nil {
		in.setAside(d.seq, pause)
	}
}

// errTaken says that a message whose batch was rolled back is in other hands, or gone.
var errTaken = errors.New("the message is in other hands")

// tryAlone tries to settle a delivery whose batch was rolled back, and returns the server's refusal, or errTaken. It returns
// nil also when nothing can be said of the message: it is free and will be handled again.
func (r *receiver) tryAlone(in *instance, d *delivery) error {
	if r.connect() != nil {
		return nil
	}
	ctx, cancel := r.timeout()
	defer cancel()
	err := r.settleRelocked(ctx, in, d)
	if err == errTaken {
		return err
	}
	if err == nil || connectionLost(err) {
		return nil
	}
	r.rollback()
	if serverTrouble(err) && in.mayWait([]*delivery{d}) {
		r.troubled(in, err)
		return nil
	}
	return err
}

// settleRelocked settles a delivery whose batch was rolled back, in a transaction of its own, if it is free; else it returns
// errTaken.
func (r *receiver) settleRelocked(ctx context.Context, in *instance, d *delivery) error {
	if err := r.conn.begin(ctx); err != nil {
		return err
	}
	free, err := r.run.client.store.Relock(ctx, r.conn, in.endpoint.Name, []int64{d.seq})
	if err != nil {
		return err
	}
	if len(free) == 0 {
		if err := r.exec(ctx, `ROLLBACK`); err != nil {
			return err
		}
		return errTaken
	}
	if mine, err := r.reclaim(ctx, in, d); err != nil || !mine {
		return errors.Join(err, r.exec(ctx, `ROLLBACK`))
	}
	s := newSettlement(in, store.From{Queue: in.endpoint.Name})
	s.add(in, d)
	return r.commit(ctx, in, s)
}

// unsettled says why the server refused to settle a delivery: for what its handler sent, or what it wrote.
func (in *instance) unsettled(d *delivery, err error) error {
	err = serverSaid(err)
	if d.err != nil {
		return fmt.Errorf("%w (the server refused to store this at first: %w)", d.err, err)
	}
	queues := queuesOf(d.out)
	switch state := sqlState(err); {
	case state == undefinedTable && len(queues) > 0:
		return fmt.Errorf("settle: %w: the handler sent to %s (%s, then replay the message): %w", ErrNoQueue, quoted(queues), in.client.createQueue(queues), err)
	case state == insufficientPrivs && len(d.out) > 0:
		return fmt.Errorf("settle: %w for what the handler sent (%s): %w", ErrNotGranted, in.client.grant("producer", queues...), err)
	}
	return fmt.Errorf("settle: the server refuses what the handler did: %w", err)
}

// commit settles and ends the open transaction, then wakes whom it sent to.
func (r *receiver) commit(ctx context.Context, in *instance, s *settlement) error {
	b := &pgx.Batch{}
	if err := s.queue(b); err != nil {
		return err
	}
	b.Queue(`COMMIT`).Exec(committed)
	if err := r.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	in.count(s)
	r.run.client.wake(s.channels...)
	return nil
}
