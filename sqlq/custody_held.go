package sqlq

import (
	"context"
	"errors"

	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// heldCustody is of messages whose rows the receive transaction has locked since their fetch. They end with their batch, in that
// transaction. What is written here about one that ends by itself is about batches whose transaction is gone.
type heldCustody struct{}

func (heldCustody) needsOwn(*work) bool                         { return false }
func (heldCustody) prepare(context.Context, *link, *work) error { return nil }
func (heldCustody) stayed(*link, *instance, []store.Message)    {}
func (heldCustody) unready(*instance, *work, []store.Message)   {} // they are free with their transaction
func (heldCustody) source(w *work) store.From                   { return store.From{Queue: w.in.endpoint.Name} }
func (heldCustody) row(m *store.Message) int64                  { return m.Seq }
func (heldCustody) enter(*hand, *batch)                         {}
func (heldCustody) dismiss(*hand, *delivery)                    {}
func (heldCustody) begin(_ *receiver, _ *work, b *batch) *batch { return b }
func (heldCustody) isSingle() bool                              { return false }
func (heldCustody) mayGoBack() bool                             { return true }
func (heldCustody) handlerEnded(*hand, *delivery)               {}
func (heldCustody) from(in *instance, _ *delivery) store.From {
	return store.From{Queue: in.endpoint.Name}
}
func (heldCustody) key(d *delivery) int64                       { return d.seq }
func (heldCustody) isPatient(in *instance, ds []*delivery) bool { return in.refusals.mayWait(ds) }
func (heldCustody) mayFail(*delivery) bool                      { return true }
func (heldCustody) mayWait(*delivery) bool                      { return true }

func (heldCustody) queueFetch(l *link, b *pgx.Batch, w *work, where store.Where, bounds store.Bounds, into *[]store.Message) {
	where.After = max(w.after, w.above)
	l.run.client.store.Ready.Fetch(b, w.in.endpoint.Name, where, min(bounds.Inline, bounds.Body), into)
}

func (heldCustody) foundNone(ctx context.Context, l *link, _ *work) {
	if err := l.exec(ctx, `ROLLBACK`); err != nil {
		l.lost(err)
	}
}

func (heldCustody) readRest(ctx context.Context, l *link, w *work, ms []store.Message) ([]store.Message, map[int64]error, error) {
	return l.readRest(ctx, w, ms, fetchBytes)
}

func (heldCustody) gates(in *instance, gates []gate) []gate {
	if aside := in.refusals.asides(); aside != nil {
		gates = append(gates, asideGate(aside))
	}
	return append(gates, suspectGate{in})
}

func (heldCustody) receive(d *delivery, m *store.Message, _ *work) {
	_, d.crashes = d.Headers[headerCrashes]
}

// unbegun frees a message with the commit of its batch.
func (heldCustody) unbegun(h *hand, d *delivery) { h.move(d, freed) }

func (heldCustody) complete(s *settlement, d *delivery) {
	if s.holds {
		s.rows = append(s.rows, d.row)
	} else {
		s.keys = append(s.keys, d.seq)
	}
}

func (heldCustody) queue(s *settlement, b *pgx.Batch) error {
	if len(s.rows) > 0 {
		s.client.store.Ready.Complete(b, s.from.Queue, s.rows)
	}
	s.in.leaveGivenBack(s.back) // before they are free
	if err := s.queueEnds(b); err != nil || len(s.running) == 0 {
		return err
	}
	seqs := make([]int64, len(s.running))
	for i, d := range s.running {
		seqs[i] = d.seq
	}
	s.leases = map[int64]int64{}
	s.client.store.Leases.Add(b, s.from.Queue, s.by, seqs, s.attempts, s.leases)
	return nil
}

// store settles a delivery whose batch's transaction is gone, if nobody has taken its row meanwhile.
func (c heldCustody) store(ctx context.Context, l *link, in *instance, ds []*delivery) error {
	for _, d := range ds { // one
		if err := l.conn.BeginReceive(ctx); err != nil {
			return err
		}
		free, err := l.run.client.store.Ready.Relock(ctx, l.conn, in.endpoint.Name, []int64{d.seq})
		if err != nil {
			return err
		}
		mine := false
		if len(free) > 0 {
			if mine, err = l.reclaim(ctx, in, d); err != nil {
				return errors.Join(err, l.exec(ctx, `ROLLBACK`))
			}
		}
		if !mine {
			if err := l.exec(ctx, `ROLLBACK`); err != nil {
				return err
			}
			if len(free) == 0 && !d.outcome.removes() { // perhaps by another receiver of this process: not at once again
				in.setAside(d.seq, firstRefusalPause)
			}
			in.hand.step(d, freed)
			continue
		}
		s := newSettlement(in, c, c.from(in, d))
		s.add(d)
		if err := l.commit(ctx, in, s); err != nil {
			return err
		}
		in.hand.step(d, settled)
	}
	return nil
}

// putOff leaves messages to whoever fetches them.
func (heldCustody) putOff(in *instance, ds []*delivery) {
	for _, d := range ds {
		in.hand.step(d, freed)
	}
}

// disconnected: if it was not committed they are free, and will be handled again.
func (c heldCustody) disconnected(in *instance, ds []*delivery, _ error) { c.putOff(in, ds) }

func (heldCustody) stuck(in *instance, d *delivery, pause time.Duration, _ error) {
	in.setAside(d.seq, pause)
	in.hand.step(d, freed)
}
