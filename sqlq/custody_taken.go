package sqlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// takenCustody is of messages that were removed at their fetch, in an endpoint that is AtMostOnce; only when that has committed
// do their handlers run. From there on this process has the only copy, so what comes after differs from the other custodies in
// one rule: after a commit whose answer was lost nothing is tried again, because it might be stored twice.
type takenCustody struct{}

func (takenCustody) needsOwn(*work) bool                         { return true }
func (takenCustody) prepare(context.Context, *link, *work) error { return nil }
func (takenCustody) foundNone(context.Context, *link, *work)     {}
func (takenCustody) gates(_ *instance, gates []gate) []gate      { return gates }
func (takenCustody) unready(*instance, *work, []store.Message)   {} // nothing is asked of them
func (takenCustody) source(w *work) store.From                   { return store.From{Queue: w.in.endpoint.Name} }
func (takenCustody) row(m *store.Message) int64                  { return m.Seq }
func (takenCustody) dismiss(h *hand, d *delivery)                { delete(h.removed, d) }
func (takenCustody) begin(*receiver, *work, *batch) *batch       { return nil }
func (takenCustody) isSingle() bool                              { return true }
func (takenCustody) mayGoBack() bool                             { return false }
func (takenCustody) unbegun(h *hand, d *delivery)                { h.returnUnbegun(d) }
func (takenCustody) from(in *instance, _ *delivery) store.From {
	return store.From{Queue: in.endpoint.Name}
}
func (takenCustody) key(d *delivery) int64                 { return d.seq }
func (takenCustody) complete(s *settlement, _ *delivery)   { s.gone++ }
func (takenCustody) isPatient(*instance, []*delivery) bool { return true }
func (takenCustody) putOff(in *instance, ds []*delivery)   { in.hand.putOff(ds) }
func (takenCustody) mayFail(d *delivery) bool              { return !d.goesBack() && d.outcome.removes() }
func (takenCustody) mayWait(*delivery) bool                { return false } // it would be handled twice

// queueFetch: what its commit does not answer for is not handled.
func (takenCustody) queueFetch(l *link, b *pgx.Batch, w *work, where store.Where, bounds store.Bounds, into *[]store.Message) {
	l.run.client.store.Removed.Fetch(b, w.in.endpoint.Name, where, bounds, into)
	b.Queue(`COMMIT`).Exec(committed)
}

func (takenCustody) stayed(l *link, in *instance, stay []store.Message) { l.failTooLarge(in, stay) }

// readRest has nothing to do: the fetch brings messages whole, or leaves them.
func (takenCustody) readRest(_ context.Context, _ *link, _ *work, ms []store.Message) ([]store.Message, map[int64]error, error) {
	return ms, nil, nil
}

// receive keeps the message. A process that died with it cannot have left a mark on it.
func (takenCustody) receive(d *delivery, m *store.Message, _ *work) {
	kept := *m
	d.removed = &kept
}

func (takenCustody) enter(h *hand, b *batch) {
	for _, d := range b.all {
		h.removed[d] = struct{}{}
	}
}

// handlerEnded: what succeeded and sent nothing is done; of the others there is something to be stored.
func (takenCustody) handlerEnded(h *hand, d *delivery) {
	v := d.outcome.verdict
	if v != expire && (v != complete || len(d.out) > 0) {
		h.queueDecided(d)
		return
	}
	h.counts.over(v == expire)
	h.outcomes.gone(d)
	h.move(d, settled)
	delete(h.removed, d)
}

func (takenCustody) queue(s *settlement, b *pgx.Batch) error {
	st := s.client.store
	if len(s.delayed) > 0 {
		st.Removed.Delay(b, s.from.Queue, messagesOf(s.delayed), s.retries, s.notify)
	}
	if len(s.failed) > 0 {
		if err := st.Removed.Fail(b, s.from.Queue, messagesOf(s.failed), s.failures); err != nil {
			return err
		}
	}
	if len(s.back) > 0 {
		st.Removed.PutBack(b, s.from.Queue, messagesOf(s.back), s.notify)
	}
	return nil
}

func messagesOf(ds []*delivery) []*store.Message {
	ms := make([]*store.Message, len(ds))
	for i, d := range ds {
		ms[i] = d.removed
	}
	return ms
}

// errUnknownOutcome says that the connection was lost during a commit.
var errUnknownOutcome = errors.New("whether it was committed is not known")

// store stores what is left to be stored. The commit goes by itself, so that an error before it means that nothing is stored.
func (c takenCustody) store(ctx context.Context, l *link, in *instance, ds []*delivery) error {
	s := newSettlement(in, c, c.from(in, ds[0]))
	for _, d := range ds {
		s.add(d)
	}
	b := &pgx.Batch{}
	l.conn.QueueBeginReceive(b)
	if err := s.queue(b); err != nil {
		return err
	}
	if err := l.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	tag, err := l.conn.Exec(ctx, `COMMIT`)
	if session.Lost(err) {
		return fmt.Errorf("%w: %w", errUnknownOutcome, err)
	}
	if err == nil {
		err = committed(tag)
	}
	if err != nil {
		return err
	}
	in.count(s)
	l.run.client.wakes.Wake(s.channels...)
	in.hand.stored(ds)
	return nil
}

func (takenCustody) disconnected(in *instance, ds []*delivery, err error) {
	if !errors.Is(err, errUnknownOutcome) {
		in.hand.putOff(ds)
		return
	}
	for _, d := range ds {
		in.client.log.Error("sqlq: the connection was lost while the outcome of a message that is handled at most once was being stored: what its handler sent, or its failure, may be lost",
			"endpoint", in.endpoint.Name, "type", loggedText(d.stored.messageType), "message", d.stored.id, "failure", loggedError(d.err), "err", err)
	}
	in.hand.stored(ds)
}

// stuck keeps the delivery. A process that ends loses it.
func (takenCustody) stuck(in *instance, d *delivery, pause time.Duration, refusal error) {
	if in.keep(d, pause) {
		return
	}
	in.client.log.Error("sqlq: the server refuses to store a message that is handled at most once; it is lost", "endpoint", in.endpoint.Name,
		"type", loggedText(d.stored.messageType), "message", d.stored.id, "failure", loggedError(d.err), "err", loggedError(refusal))
	in.hand.stored([]*delivery{d})
}
