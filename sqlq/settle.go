package sqlq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// settler stores the ends of deliveries of one custody: together; and where the server refuses that, each by itself, so that one
// holds up no others. What it refuses even so is the message's own failure, and is stored as one; where it refuses that too the
// message waits. While the server is in trouble that is nobody's failure, and they wait for it; and when the connection is lost
// the custody knows what that means.
type settler struct {
	l       *link
	in      *instance
	custody custody
	lost    error // of the connection
	away    bool  // the database cannot be reached: what is left is put off
}

// settle stores the ends of deliveries that have left their batch, or whose batch's transaction is gone.
func (s *settler) settle(ds []*delivery) {
	switch refusal := s.try(ds); {
	case refusal == nil:
	case len(ds) == 1:
		s.refused(ds[0], refusal)
	default:
		for i := range ds {
			s.settle(ds[i : i+1])
		}
	}
}

// end follows when there is nothing more to settle.
func (s *settler) end() {
	if s.lost != nil {
		s.l.unreachable(fmt.Errorf("settle messages of queue %q: %w", s.in.endpoint.Name, s.lost))
	}
}

// refused ends a delivery that the server refuses to settle as it is.
func (s *settler) refused(d *delivery, refusal error) {
	one := []*delivery{d}
	if s.custody.mayFail(d) {
		s.in.handlers.refused(d, s.in.client.unsettled(d, refusal))
		if refusal = s.try(one); refusal == nil {
			return
		}
	}
	pause := s.in.refusedAgain(d, refusal)
	if s.custody.mayWait(d) {
		decided, failure := d.outcome, d.err
		d.wait(pause, refusalOf(refusal))
		if refusal = s.try(one); refusal == nil {
			return
		}
		d.outcome, d.err = decided, failure
	}
	s.custody.stuck(s.in, d, pause, refusal)
}

// try stores the ends of deliveries together. It returns the server's refusal; after anything else they have been taken care of.
func (s *settler) try(ds []*delivery) (refusal error) {
	if !s.away {
		if err := s.l.connect(); err != nil {
			s.lost, s.away = err, true
		}
	}
	if s.away {
		s.custody.putOff(s.in, ds)
		return nil
	}
	ctx, cancel := s.l.timeout()
	defer cancel()
	refusal, lost := s.l.judge(s.in, s.custody, ds, s.custody.store(ctx, s.l, s.in, ds))
	if lost != nil {
		s.lost = lost
		s.l.giveUp()
	}
	return refusal
}

// judge says what the result of storing the ends of deliveries means for them. It returns the server's refusal, of which the
// caller takes care; or why the connection was lost.
func (l *link) judge(in *instance, back setback, ds []*delivery, err error) (refusal, lost error) {
	switch {
	case err == nil:
		l.trouble.Reset()
	case session.Lost(err):
		back.disconnected(in, ds, err)
		return nil, err
	case session.Troubled(err) && back.isPatient(in, ds):
		l.rollback()
		back.putOff(in, ds)
		l.troubled(in, err)
	default:
		l.rollback()
		return err, nil
	}
	return nil, nil
}

// settleFinished settles what has left its batch and is finished, of all instances.
func settleFinished(l *link) {
	for _, in := range l.run.instances.now() {
		settleAll(l, in, in.hand.toSettle())
	}
}

// settleAll settles deliveries that have left their batch. An instance that was thought dead goes on under another number.
func settleAll(l *link, in *instance, ds []*delivery) {
	type group struct {
		custody  custody
		leasedBy int32
	}
	groups := map[group][]*delivery{}
	for _, d := range ds {
		g := group{d.custody, d.leasedBy}
		groups[g] = append(groups[g], d)
	}
	for g, ds := range groups {
		s := settler{l: l, in: in, custody: g.custody}
		s.settle(ds)
		s.end()
	}
}

// settleNow settles a delivery that has just ended on this connection; it does not wait for the next receiver. With a refusal, the
// server has refused its end already.
func settleNow(l *link, in *instance, d *delivery, refusal error) {
	in.hand.step(d, settling)
	s := settler{l: l, in: in, custody: d.custody}
	if refusal != nil {
		s.refused(d, refusal)
	} else {
		s.settle([]*delivery{d})
	}
	s.end()
}

// troubled waits before a settle is tried again that the server could not do for reasons of its own. That is nobody's
// failure, and no attempt is counted.
func (l *link) troubled(in *instance, err error) {
	l.run.client.log.Warn("sqlq: the server cannot settle messages now, trying again", "endpoint", in.endpoint.Name, "err", err)
	l.trouble.Wait(l.run.hardCtx)
}

// unsettled says why the server refused to settle a delivery: for what its handler sent, or what it wrote.
func (c *Client) unsettled(d *delivery, err error) error {
	err = session.ServerSaid(err)
	if d.err != nil {
		return fmt.Errorf("%w (the server refused to store this at first: %w)", d.err, err)
	}
	queues := queuesOf(d.out)
	switch state := session.State(err); {
	case state == session.UndefinedTable && len(queues) > 0:
		return fmt.Errorf("settle: %w: the handler sent to %s (%s, then replay the message): %w", ErrNoQueue, quoted(queues), c.createQueue(queues), err)
	case state == session.InsufficientPrivilege && len(d.out) > 0:
		return fmt.Errorf("settle: %w for what the handler sent (%s): %w", ErrPermissionDenied, c.grant("producer", queues...), err)
	}
	return fmt.Errorf("settle: the server refuses what the handler did: %w", err)
}

// commit settles and ends the open transaction, then wakes whom it sent to.
func (l *link) commit(ctx context.Context, in *instance, s *settlement) error {
	b := &pgx.Batch{}
	if err := s.queue(b); err != nil {
		return err
	}
	b.Queue(`COMMIT`).Exec(committed)
	if err := l.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	in.count(s)
	l.run.client.wakes.Wake(s.channels...)
	return nil
}
