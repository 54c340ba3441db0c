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

func (heldCustody) needsOwn(*work) bool                             { return false }
func (heldCustody) prepare(context.Context, *receiver, *work) error { return nil }
func (heldCustody) stayed(*receiver, *instance, []store.Message)    {}
func (heldCustody) unready(*instance, *work, []store.Message)       {} // they are free with their transaction
func (heldCustody) source(w *work) store.From                       { return store.From{Queue: w.in.endpoint.Name} }
func (heldCustody) row(m *store.Message) int64                      { return m.Seq }
func (heldCustody) enter(*instance, *batch)                         {}
func (heldCustody) dismiss(*instance, *delivery)                    {}
func (heldCustody) begin(_ *receiver, _ *work, b *batch) *batch     { return b }
func (heldCustody) isSingle() bool                                  { return false }
func (heldCustody) mayGoBack() bool                                 { return true }
func (heldCustody) handlerEnded(*instance, *delivery)               {}
func (heldCustody) from(in *instance, _ *delivery) store.From {
	return store.From{Queue: in.endpoint.Name}
}
func (heldCustody) key(d *delivery) int64                       { return d.seq }
func (heldCustody) isPatient(in *instance, ds []*delivery) bool { return in.mayWait(ds) }
func (heldCustody) mayFail(*delivery) bool                      { return true }
func (heldCustody) mayWait(*delivery) bool                      { return true }

func (heldCustody) queueFetch(r *receiver, b *pgx.Batch, w *work, where store.Where, bounds store.Bounds, into *[]store.Message) {
	where.After = max(w.after, w.above)
	r.run.client.store.Ready.Fetch(b, w.in.endpoint.Name, where, min(bounds.Inline, bounds.Body), into)
}

func (heldCustody) foundNone(ctx context.Context, r *receiver, _ *work) {
	if err := r.exec(ctx, `ROLLBACK`); err != nil {
		r.lost(err)
	}
}

func (heldCustody) readRest(ctx context.Context, r *receiver, w *work, ms []store.Message) ([]store.Message, map[int64]error, error) {
	return r.readRest(ctx, w, ms, fetchBytes)
}

func (heldCustody) gates(in *instance, gates []gate) []gate {
	if aside := in.setAsides(); aside != nil {
		gates = append(gates, asideGate(aside))
	}
	return append(gates, suspectGate{in})
}

func (heldCustody) receive(d *delivery, m *store.Message, _ *work) {
	_, d.crashes = d.Headers[headerCrashes]
}

// unbegun frees a message with the commit of its batch.
func (heldCustody) unbegun(in *instance, d *delivery) { in.move(d, freed) }

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
func (c heldCustody) store(ctx context.Context, r *receiver, in *instance, ds []*delivery) error {
	for _, d := range ds { // one
		if err := r.conn.BeginReceive(ctx); err != nil {
			return err
		}
		free, err := r.run.client.store.Ready.Relock(ctx, r.conn, in.endpoint.Name, []int64{d.seq})
		if err != nil {
			return err
		}
		mine := false
		if len(free) > 0 {
			if mine, err = r.reclaim(ctx, in, d); err != nil {
				return errors.Join(err, r.exec(ctx, `ROLLBACK`))
			}
		}
		if !mine {
			if err := r.exec(ctx, `ROLLBACK`); err != nil {
				return err
			}
			if len(free) == 0 && !d.outcome.removes() { // perhaps by another receiver of this process: not at once again
				in.setAside(d.seq, firstRefusalPause)
			}
			in.step(d, freed)
			continue
		}
		s := newSettlement(in, c, c.from(in, d))
		s.add(d)
		if err := r.commit(ctx, in, s); err != nil {
			return err
		}
		in.step(d, settled)
	}
	return nil
}

// putOff leaves messages to whoever fetches them.
func (heldCustody) putOff(in *instance, ds []*delivery) {
	for _, d := range ds {
		in.step(d, freed)
	}
}

// disconnected: if it was not committed they are free, and will be handled again.
func (c heldCustody) disconnected(in *instance, ds []*delivery, _ error) { c.putOff(in, ds) }

func (heldCustody) stuck(in *instance, d *delivery, pause time.Duration, _ error) {
	in.setAside(d.seq, pause)
	in.step(d, freed)
}

// heldBatch is the setback of a batch as a whole, whose end shares a round trip with the next fetch.
type heldBatch struct {
	r *receiver
	b *batch
}

func (h heldBatch) isPatient(in *instance, ds []*delivery) bool { return in.mayWait(ds) }

// putOff leaves the messages of a batch whose transaction is gone to whoever fetches them next.
func (h heldBatch) putOff(*instance, []*delivery) { h.r.release(h.b) }

// disconnected: whether it was committed is not known. If it was not, the messages are free again and will be handled again.
func (h heldBatch) disconnected(_ *instance, _ []*delivery, err error) { h.r.abandon(h.b, err) }
