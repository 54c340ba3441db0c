package sqlq

import (
	"context"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// gate stands between a fetch and the handlers. It may say of a message that it is not to be handled now: then no attempt is
// spent, and its row is free with the end of the receive transaction.
type gate interface {
	// look asks the database what it must know of the messages of a fetch, on the receive connection: in the transaction that
	// holds them, if they are held.
	look(ctx context.Context, l *link, w *work, ms []store.Message) error
	// pass reports whether a message may be handled, or decided upon, now. It may note in the delivery what it found.
	pass(d *delivery) bool
}

// gatesOf returns the gates that the messages of a fetch must pass, in order.
func (r *receiver) gatesOf(w *work) []gate {
	gates := r.gates[:0]
	if w.in.endpoint.Deduplicate > 0 {
		gates = append(gates, &inboxGate{})
	}
	r.gates = w.custody.gates(w.in, gates)
	return r.gates
}

// asideGate keeps away what was being set aside while it was fetched.
type asideGate map[int64]int

func (asideGate) look(context.Context, *link, *work, []store.Message) error { return nil }

func (g asideGate) pass(d *delivery) bool { return g[d.seq] == 0 }

// suspectGate keeps messages that may have killed a process from being received but by lease.
type suspectGate struct{ in *instance }

func (suspectGate) look(context.Context, *link, *work, []store.Message) error { return nil }

func (g suspectGate) pass(d *delivery) bool {
	if d.crashes {
		g.in.suspicion.upToSeq(d.seq)
	}
	return !d.crashes
}
