package sqlq

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// leasedCustody is of messages that are among the leased, in the name of an instance: fetched so because they may have killed a
// process, or leased while their handlers ran.
type leasedCustody struct{}

func (leasedCustody) stayed(*link, *instance, []store.Message) {}
func (leasedCustody) gates(_ *instance, gates []gate) []gate   { return gates }
func (leasedCustody) source(w *work) store.From {
	return store.From{Queue: w.in.endpoint.Name, Instance: w.by}
}
func (leasedCustody) row(m *store.Message) int64                  { return m.Lease }
func (leasedCustody) dismiss(h *hand, d *delivery)                { delete(h.leases, d.lease) }
func (leasedCustody) isSingle() bool                              { return true }
func (leasedCustody) mayGoBack() bool                             { return true }
func (leasedCustody) unbegun(h *hand, d *delivery)                { h.returnUnbegun(d) }
func (leasedCustody) handlerEnded(h *hand, d *delivery)           { h.queueDecided(d) }
func (leasedCustody) key(d *delivery) int64                       { return d.lease }
func (leasedCustody) complete(s *settlement, d *delivery)         { s.keys = append(s.keys, d.lease) }
func (leasedCustody) isPatient(in *instance, ds []*delivery) bool { return in.refusals.mayWait(ds) }
func (leasedCustody) putOff(in *instance, ds []*delivery)         { in.hand.putOff(ds) }
func (leasedCustody) mayFail(d *delivery) bool                    { return !d.goesBack() }
func (leasedCustody) mayWait(d *delivery) bool                    { return !d.goesBack() }

func (leasedCustody) from(in *instance, d *delivery) store.From {
	return store.From{Queue: in.endpoint.Name, Instance: d.leasedBy}
}

// needsOwn: the first fetch asks before how far suspicion goes.
func (leasedCustody) needsOwn(w *work) bool { return w.upTo == 0 }

func (leasedCustody) prepare(ctx context.Context, l *link, w *work) error {
	return l.learnSuspects(ctx, w)
}

func (leasedCustody) queueFetch(l *link, b *pgx.Batch, w *work, where store.Where, bounds store.Bounds, into *[]store.Message) {
	where.UpTo = w.upTo
	l.run.client.store.Leases.Fetch(b, w.in.endpoint.Name, w.by, where, bounds, into)
	b.Queue(`COMMIT`)
}

func (leasedCustody) foundNone(ctx context.Context, l *link, w *work) {
	if w.only == "" {
		l.clearSuspicion(ctx, *w)
	}
}

// readRest reads all: the fetch has bounded what comes.
func (leasedCustody) readRest(ctx context.Context, l *link, w *work, ms []store.Message) ([]store.Message, map[int64]error, error) {
	return l.readRest(ctx, w, ms, math.MaxInt)
}

func (leasedCustody) unready(in *instance, w *work, ms []store.Message) {
	ds := newDeliveries(ms)
	for i, d := range ds {
		d.stored.id, d.custody, d.lease, d.leasedBy = ms[i].ID, leasedCustody{}, ms[i].Lease, w.by
	}
	in.hand.giveBackLeased(ds)
}

func (leasedCustody) receive(d *delivery, m *store.Message, w *work) {
	_, d.crashes = d.Headers[headerCrashes]
	d.lease, d.leasedBy = m.Lease, w.by
}

func (leasedCustody) enter(h *hand, b *batch) {
	for _, d := range b.all {
		h.leases[d.lease] = d
	}
}

// begin runs the HandleTx handlers of a batch, each in a transaction of its own.
func (leasedCustody) begin(r *receiver, w *work, b *batch) *batch {
	for i, d := range b.inTx {
		if w.in.phase.isDraining() {
			w.in.hand.giveBackLined(b.inTx[i:])
			r.run.dispatcher.kick()
			break
		}
		r.handleLeasedTx(w.in, d)
	}
	w.in.endTx()
	return nil
}

func (leasedCustody) queue(s *settlement, b *pgx.Batch) error {
	if err := s.queueEnds(b); err != nil || len(s.back) == 0 {
		return err
	}
	leases := make([]int64, len(s.back))
	for i, d := range s.back {
		leases[i] = d.lease
	}
	s.client.store.Leases.GiveBack(b, s.from.Queue, s.from.Instance, leases, s.notify)
	return nil
}

// store settles leased deliveries of one instance number. Those whose lease is gone were given to others while this process was
// thought dead: nothing of them is stored.
func (c leasedCustody) store(ctx context.Context, l *link, in *instance, ds []*delivery) error {
	leases := make([]int64, len(ds))
	for i, d := range ds {
		leases[i] = d.lease
	}
	if err := l.conn.BeginReceive(ctx); err != nil {
		return err
	}
	mine, err := l.run.client.store.Leases.Lock(ctx, l.conn, ds[0].leasedBy, leases)
	if err != nil {
		return err
	}
	ours := make(map[int64]bool, len(mine))
	for _, lease := range mine {
		ours[lease] = true
	}
	s := newSettlement(in, c, c.from(in, ds[0]))
	for _, d := range ds {
		if !ours[d.lease] {
			if !d.back { // else its handler runs
				d.outcome = outcome{verdict: giveBack} // nothing is stored of it
			}
			l.run.client.log.Warn("sqlq: a handler finished after its message was given to another receiver", "endpoint", in.endpoint.Name, "message", d.stored.id)
			continue
		}
		s.add(d)
	}
	if err := l.commit(ctx, in, s); err != nil {
		return err
	}
	in.hand.stored(ds)
	return nil
}

// disconnected: what was stored is no more theirs when they are settled again.
func (leasedCustody) disconnected(in *instance, ds []*delivery, _ error) { in.hand.putOff(ds) }

// stuck keeps the delivery, leased. A process that ends leaves the lease to others.
func (leasedCustody) stuck(in *instance, d *delivery, pause time.Duration, _ error) {
	if !in.keep(d, pause) {
		in.hand.stored([]*delivery{d})
	}
}
