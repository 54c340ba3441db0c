package sqlq

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// An endpoint that deduplicates claims the ids of what it has fetched, before any handler runs:
//
//   - Held messages are claimed in the receive transaction. Its commit, which removes what was handled, makes the claims
//     of these last; those of all others are taken back before.
//   - A message that is leased stays claimed by a row that names the instance. That row counts for as long as the lease
//     is there, so whatever ends a lease ends the claim: a settle, the death of the process, an operator.
//
// So no two handlers of one id run at the same time, and none runs after one that was settled.

const (
	// maxWindow is the longest Endpoint.Deduplicate: what the inbox that keeps the longest keeps.
	maxWindow = 31 * 24 * time.Hour
	// waitElse is how long a message waits, among the delayed, while another of its id is in hand.
	waitElse = time.Second
)

// errInHandsElse is why a message waits that has not failed.
var errInHandsElse = errors.New("another message with this id is being handled")

// claim claims the ids of fetched messages: held ones by the receive transaction, leased ones for their leases.
func (r *receiver) claim(ctx context.Context, w work, ms []store.Message) (map[[16]byte]store.Claim, error) {
	ids := make([][16]byte, len(ms))
	for i := range ms {
		ids[i] = ms[i].ID
	}
	var by int32
	var leases []int64
	if w.byLease {
		by = w.by
		for i := range ms {
			leases = append(leases, ms[i].Lease)
		}
	}
	return r.run.client.store.Claim(ctx, r.conn, w.in.endpoint.Name, ids, w.in.endpoint.Deduplicate, by, leases)
}

// returnUnclaimed has messages that were leased and could not be claimed given back. Held ones are free with their
// transaction.
func (in *instance) returnUnclaimed(w work, ms []store.Message) {
	if !w.byLease {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, d := range newDeliveries(ms) {
		d.stored.id, d.lease, d.leasedBy, d.outcome = ms[i].ID, ms[i].Lease, w.by, outcome{verdict: giveBack}
		in.leases[d.lease] = d
		in.queueDecided(d)
	}
}

// decideByClaim brings a delivery that may not be handled to its verdict.
func (in *instance) decideByClaim(d *delivery) {
	if d.claim == store.Duplicate {
		d.outcome = outcome{verdict: complete}
		in.client.log.Debug("sqlq: removed a message whose id was handled before", "endpoint", in.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id)
		return
	}
	d.wait(waitElse, errInHandsElse)
}

// claimed notes what becomes of the claim on a delivery's id. That of a held message that was handled is left as it is.
func (s *settlement) claimed(d *delivery) {
	completed := !d.goesBack() && (d.state == decided || d.state == settling) && d.outcome.verdict == complete
	switch {
	case d.claim == store.Duplicate && completed:
		s.duplicates++
	case d.claim != store.Claimed:
	case d.lease == 0 && (d.state == leasing || d.state == leasingDecided):
		s.claims.Leasing = append(s.claims.Leasing, d.stored.id)
	case !completed:
		s.claims.Unhandled = append(s.claims.Unhandled, d.stored.id)
	case d.lease != 0:
		s.claims.Handled = append(s.claims.Handled, d.stored.id)
	}
}

// queueClaims adds what is to be said of claims to a round trip.
func (s *settlement) queueClaims(b *pgx.Batch) {
	if !s.claims.Any() {
		return
	}
	leased, by := s.from.Instance != 0, s.by
	if leased {
		by = s.from.Instance
	}
	s.client.store.SettleClaims(b, s.from.Queue, s.window, s.claims, leased, by)
}

// reclaim claims the id of a held delivery anew, whose claim went with its transaction, and says whether it is to be settled.
// If another of its id was handled meanwhile this one is a duplicate after all, and what its handler sent is not stored.
func (r *receiver) reclaim(ctx context.Context, in *instance, d *delivery) (settle bool, err error) {
	if d.claim != store.Claimed {
		return true, nil
	}
	if d.outcome.verdict != complete {
		d.claim = store.Unclaimed
		return true, nil
	}
	claims, err := r.run.client.store.Claim(ctx, r.conn, in.endpoint.Name, [][16]byte{d.stored.id}, in.endpoint.Deduplicate, 0, nil)
	if err != nil {
		return false, err
	}
	switch claims[d.stored.id] {
	case store.InHandsElse:
		return false, nil
	case store.Duplicate:
		d.claim, d.out = store.Duplicate, nil
	}
	return true, nil
}

// unclaim takes back the claims of a batch whose transaction a handler has ended: if it committed, they stand, and would have
// messages taken for handled that are not. It leaves those alone that others have fetched meanwhile.
func (r *receiver) unclaim(b *batch) {
	if b.in.endpoint.Deduplicate == 0 {
		return
	}
	ctx, cancel := r.timeout()
	defer cancel()
	if err := r.takeBackClaims(ctx, b); err != nil {
		r.run.client.log.Error("sqlq: cannot take back the claims on messages whose transaction a handler has ended; if it committed they are taken for handled",
			"endpoint", b.in.endpoint.Name, "err", err)
		r.rollback()
	}
}

func (r *receiver) takeBackClaims(ctx context.Context, b *batch) error {
	in, st := b.in, r.run.client.store
	ids, seqs := map[int64][16]byte{}, []int64{}
	for _, d := range b.all {
		if d.claim == store.Claimed {
			ids[d.seq] = d.stored.id
			seqs = append(seqs, d.seq)
		}
	}
	if err := r.conn.begin(ctx); err != nil {
		return err
	}
	free, err := st.Relock(ctx, r.conn, in.endpoint.Name, seqs)
	if err != nil {
		return err
	}
	s := &settlement{client: r.run.client, from: store.From{Queue: in.endpoint.Name}, window: in.endpoint.Deduplicate}
	for _, seq := range free {
		s.claims.Unhandled = append(s.claims.Unhandled, ids[seq])
	}
	return r.commit(ctx, in, s)
}
