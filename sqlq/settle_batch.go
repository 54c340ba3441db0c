package sqlq

import (
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// heldBatch is the end of a held batch on its connection, in a transaction that it may share with the next fetch; and the setback of
// the batch as a whole.
type heldBatch struct {
	l *link
	b *batch
}

// settlement ends a held batch as far as it is: what is finished is settled, what runs is leased, what has not begun
// is freed by the commit.
func (h heldBatch) settlement() *settlement {
	b, in := h.b, h.b.in
	s := newSettlement(in, b.custody, b.custody.from(in, nil))
	s.by = in.number()
	s.holds = len(b.inTx) == 0 // a HandleTx handler had the connection: who knows what it did
	if s.holds {
		s.rows = make([]pgtype.TID, 0, len(b.all))
	}
	s.running = b.cut()
	for _, d := range s.running {
		s.attempts = append(s.attempts, max(0, d.made()-1)) // those that have ended
	}
	b.ends(func(d *delivery, decided bool, how howEnds) {
		if decided {
			s.add(d)
		} else {
			s.ride(d, how)
		}
	})
	return s
}

// settled takes in how the settle of a held batch went.
func (h heldBatch) settled(s *settlement, committed bool, err error) {
	b, in := h.b, h.b.in
	if committed {
		h.l.trouble.Reset()
		in.count(s)
		in.leased(s.running, s.leases, s.by)
		switch drains := in.phase.isDraining(); {
		case drains && (b.freed || len(s.back) > 0):
			in.bell.CallOthers()
		case drains || !b.freed:
		default:
			in.freed(b)
			if !in.hasRoom() {
				in.bell.Overflow()
			}
		}
		h.l.run.client.wakes.Wake(s.channels...)
		return
	}
	finished := b.finished()
	refused := err != nil && !session.Lost(err) && !session.Troubled(err)
	if refused { // before their rows are free
		in.refusals.reserve(finished)
	}
	refusal, _ := h.l.judge(in, h, finished, err)
	if refusal == nil {
		return
	}
	// The server refused something: a queue to send to is gone, say, or a deferred constraint of a HandleTx handler was
	// violated. Nothing tells whose fault it is. Other receivers are to leave the messages alone until each is settled: they
	// would have the handlers run again at once.
	in.leased(s.running, nil, 0)
	early := finished
	finished = b.finished()
	in.refusals.reserve(finished)
	if refused {
		in.refusals.unreserve(early)
	}
	changed := b.tx != nil && b.tx.changed
	for _, d := range s.running { // perhaps it was the lease that was refused: not again while the handler runs
		pause := firstRefusalPause
		if !changed {
			pause = in.refusedAgain(d, refusal)
		}
		in.setAside(d.seq, pause)
	}
	if changed {
		h.l.run.client.log.Info("sqlq: HandleTx handlers have changed settings of the session, or left temporary objects, by a function or trigger; the messages of their batch run again one by one", "endpoint", in.endpoint.Name)
	} else {
		h.sayRefused(refusal)
	}
	h.settleOneByOne(finished, refusal)
}

// sayRefused says of a batch that the server refused to settle it: now and then, and how many others there were.
func (h heldBatch) sayRefused(err error) {
	in := h.b.in
	if others, say := in.refusals.refusedBatch(); say {
		in.client.log.Warn("sqlq: cannot settle a batch, settling its messages one by one", "endpoint", in.endpoint.Name, "others", others, "err", loggedError(err))
	}
}

// settleOneByOne settles the finished deliveries of a batch whose transaction is gone, each in its own. They are reserved, and
// not so any more when it returns. Successful HandleTx handlers lost their work: they run again, one message a transaction; in
// a batch of one that fails the message.
func (h heldBatch) settleOneByOne(finished []*delivery, refused error) {
	b, in, again := h.b, h.b.in, []*delivery(nil)
	s := settler{l: h.l, in: in, custody: b.custody}
	for i, d := range finished {
		switch {
		case d.handler == nil || !d.handler.inTx || d.outcome.verdict != complete:
			s.settle(finished[i : i+1])
		case len(b.all) == 1 && refused != nil && !b.tx.mayLackRole(refused):
			s.refused(d, refused)
		default:
			again = append(again, d)
			in.hand.step(d, freed)
		}
	}
	s.end()
	in.solos.goAlone(again...)
	in.refusals.unreserve(finished)
	in.freed(b)
}

// abandon gives a batch up together with its connection. Its messages are free again, as soon as the server has noticed.
func (h heldBatch) abandon(err error) {
	in, seq := h.b.in, h.b.all[0].seq // release empties the batch
	h.release()
	in.lookAgain(seq)
	h.l.lost(fmt.Errorf("settle queue %q: %w", in.endpoint.Name, err))
}

// release leaves the messages of a batch whose transaction is gone to whoever fetches them next.
func (h heldBatch) release() {
	b := h.b
	b.in.leased(b.cut(), nil, 0)
	b.in.freed(b)
	b.release(freed)
}

func (h heldBatch) isPatient(in *instance, ds []*delivery) bool { return in.refusals.mayWait(ds) }

// putOff leaves the messages of a batch whose transaction is gone to whoever fetches them next.
func (h heldBatch) putOff(*instance, []*delivery) { h.release() }

// disconnected: whether it was committed is not known. If it was not, the messages are free again and will be handled again.
func (h heldBatch) disconnected(_ *instance, _ []*delivery, err error) { h.abandon(err) }

// leased takes in the leases of deliveries that were cut, none where they were lost with their transaction.
func (in *instance) leased(cut []*delivery, leases map[int64]int64, by int32) {
	in.hand.leased(cut, leases, by)
	in.client.config.observing.leased(in, leases)
	in.run.dispatcher.kick()
}

// lookAgainAfter is when an instance looks again for messages whose connection was lost. The first look may come while the
// server still holds them for the session that ends, and nobody notifies when it has ended. The last comes when the server has
// given up a client that it hears nothing of (idle_in_transaction_session_timeout).
var lookAgainAfter = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second, 12 * time.Second}

// lookAgain has the instance look for messages from seq on that a lost connection held, or may have held.
func (in *instance) lookAgain(seq int64) {
	for _, after := range lookAgainAfter {
		in.group.life.after(after, func() { in.freedFrom(seq) })
	}
}

// settleEnded settles a batch whose transaction a HandleTx handler has ended or spoilt. Its rows are free, those too whose
// handlers still run: these are leased at once, in a transaction of its own, unless others have been faster.
func (h heldBatch) settleEnded() {
	b, in := h.b, h.b.in
	cut := b.cut()
	mine := append(b.finished(), cut...)
	in.refusals.reserve(mine)
	leases, by, err := h.leaseAnew(cut)
	if err != nil {
		h.l.run.client.log.Warn("sqlq: cannot lease messages whose handlers run, and whose transaction another handler has ended; others may handle them too",
			"endpoint", in.endpoint.Name, "messages", len(cut), "err", loggedError(err))
		if h.l.rollback(); session.Lost(err) {
			h.l.giveUp()
		}
	}
	in.leased(cut, leases, by)
	finished := b.finished()
	in.refusals.reserve(finished)
	h.settleOneByOne(finished, nil)
	in.refusals.unreserve(mine)
	b.release(settled)
}

// leaseAnew leases deliveries that run and that nothing holds any more, if they are free. It returns their leases, by seq.
func (h heldBatch) leaseAnew(ds []*delivery) (leases map[int64]int64, by int32, err error) {
	l, in := h.l, h.b.in
	if len(ds) == 0 {
		return nil, 0, nil
	}
	if err := l.connect(); err != nil {
		return nil, 0, err
	}
	ctx, cancel := l.timeout()
	defer cancel()
	if err := l.conn.BeginReceive(ctx); err != nil {
		return nil, 0, err
	}
	seqs := make([]int64, len(ds))
	for i, d := range ds {
		seqs[i] = d.seq
	}
	free, err := l.run.client.store.Ready.Relock(ctx, l.conn, in.endpoint.Name, seqs)
	if err != nil {
		return nil, 0, err
	}
	c := heldCustody{}
	s := newSettlement(in, c, c.from(in, nil))
	s.by = in.number()
	for _, d := range ds {
		mine := slices.Contains(free, d.seq)
		if mine && d.claim == store.Claimed {
			if mine, err = l.claimAnew(ctx, in, d); err != nil {
				return nil, 0, err
			}
		}
		if mine {
			s.running, s.attempts = append(s.running, d), append(s.attempts, max(0, d.made()-1))
			s.ride(d, goesOn)
		}
	}
	if err := l.commit(ctx, in, s); err != nil {
		return nil, 0, err
	}
	return s.leases, s.by, nil
}

// freed has the instance look for messages of a batch that are free again: whoever looked meanwhile found them locked.
func (in *instance) freed(b *batch) {
	in.source.freedSpans(b.fetched...)
	in.wake()
}

// lookFromLow has the instance go through the queue again from its left end: what fetches left out may be handled now.
func (in *instance) lookFromLow() {
	in.source.goLeft()
	in.wake()
}

func (in *instance) freedFrom(seq int64) {
	in.source.freed(seq)
	in.wake()
}
