package sqlq

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// In an endpoint that is AtMostOnce a fetch removes its messages and commits; only then do their handlers run. From there
// on this process has the only copy, so what comes after differs from the rest of the engine in one rule: after a commit
// whose answer was lost nothing is tried again, because it might be stored twice.

// finishRemoved records a handled delivery that was removed at its fetch. One that succeeded and sent nothing is done; the
// others have something to be stored, by the next receiver that is free.
func (in *instance) finishRemoved(d *delivery) {
	switch v := d.outcome.verdict; {
	case v == expire:
		in.done.Expired++
	case v == complete && len(d.out) == 0:
		in.done.Handled++
	default:
		in.queueDecided(d)
		return
	}
	in.move(d, settled)
	in.dismiss(d)
}

// errUnknownOutcome says that the connection was lost during a commit.
var errUnknownOutcome = errors.New("whether it was committed is not known")

// settleRemoved stores what is left to be stored of deliveries that were removed at their fetch: together, and where the
// server refuses that, each by itself. What a handler sends and the server refuses fails its message. Without the
// database, while the server is in trouble, and when it refuses the failure too, they are kept for later.
func (r *receiver) settleRemoved(in *instance, ds []*delivery) {
	err := r.connect()
	if err == nil {
		err = r.storeRemoved(in, ds)
	}
	log, settled := r.run.client.log, false
	switch {
	case err == nil:
		settled = true
	case errors.Is(err, errUnknownOutcome):
		settled = true
		for _, d := range ds {
			log.Error("sqlq: the connection was lost while the outcome of a message that is handled at most once was being stored: what its handler sent, or its failure, may be lost",
				"endpoint", in.endpoint.Name, "type", loggedText(d.stored.messageType), "message", d.stored.id, "failure", loggedError(d.err), "err", err)
		}
		r.lost(err)
	case connectionLost(err):
		r.lost(fmt.Errorf("settle messages of queue %q: %w", in.endpoint.Name, err))
	case serverTrouble(err):
		r.rollback()
		r.troubled(in, err)
	case len(ds) > 1:
		r.rollback()
		for i := range ds {
			r.settleRemoved(in, ds[i:i+1])
		}
		return
	case ds[0].outcome.verdict == complete || ds[0].outcome.verdict == expire:
		r.rollback()
		in.refused(ds[0], fmt.Errorf("settle: %w", err))
		r.settleRemoved(in, ds)
		return
	default:
		r.rollback()
		settled = true
		if d := ds[0]; !in.keep(d, in.refusedAgain(d, err)) {
			log.Error("sqlq: the server refuses to store a message that is handled at most once; it is lost", "endpoint", in.endpoint.Name,
				"type", loggedText(d.stored.messageType), "message", d.stored.id, "failure", loggedError(d.err), "err", loggedError(err))
		}
	}
	in.settledLeases(ds, settled)
}

// storeRemoved stores the outcome of removed deliveries in a transaction. The commit goes by itself, so that an error before
// it means that nothing is stored.
func (r *receiver) storeRemoved(in *instance, ds []*delivery) error {
	ctx, cancel := r.timeout()
	defer cancel()
	s := newSettlement(in, store.From{Queue: in.endpoint.Name})
	var back []*store.Message
	for _, d := range ds {
		if d.goesBack() {
			back = append(back, d.removed)
		} else {
			s.add(in, d)
		}
	}
	b := &pgx.Batch{}
	r.conn.queueBegin(b)
	if err := s.queue(b); err != nil {
		return err
	}
	if len(back) > 0 {
		r.run.client.store.PutBack(b, in.endpoint.Name, back, s.notify)
	}
	if err := r.conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	return r.commitRemoved(ctx, in, s)
}

func (r *receiver) commitRemoved(ctx context.Context, in *instance, s *settlement) error {
	tag, err := r.conn.Exec(ctx, `COMMIT`)
	if connectionLost(err) {
		return fmt.Errorf("%w: %w", errUnknownOutcome, err)
	}
	if err == nil {
		err = committed(tag)
	}
	if err != nil {
		return err
	}
	in.count(s)
	r.run.client.wake(s.channels...)
	return nil
}

// nameLost names in the log the messages that are lost because Run ends while they are in hand: their handlers go on, or the
// database could not be reached.
func (r *runner) nameLost() {
	for _, in := range r.instances {
		in.mu.Lock()
		for d := range in.removed {
			r.client.log.Error("sqlq: a message that is handled at most once is lost with the end of its process", "endpoint", in.endpoint.Name,
				"type", d.stored.messageType, "message", d.stored.id, "handled", !runs.has(d.state))
		}
		in.mu.Unlock()
	}
}
