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

// inboxGate claims the ids of fetched messages: held ones by the receive transaction, leased ones for their leases. All may be
// decided upon: what was handled before is removed, and what is in hand elsewhere waits.
type inboxGate struct{ claims map[[16]byte]store.Claim }

func (g *inboxGate) pass(d *delivery) bool {
	if d.claim = g.claims[d.stored.id]; d.claim == store.Claimed {
		g.claims[d.stored.id] = store.InHandsElse // of a second one in the batch
	}
	return true
}

func (g *inboxGate) look(ctx context.Context, l *link, w *work, ms []store.Message) (err error) {
	ids := make([][16]byte, len(ms))
	for i := range ms {
		ids[i] = ms[i].ID
	}
	by := w.custody.source(w).Instance
	var leases []int64
	if by != 0 {
		for i := range ms {
			leases = append(leases, ms[i].Lease)
		}
	}
	g.claims, err = l.run.client.store.Inbox.Claim(ctx, l.conn, w.in.endpoint.Name, ids, w.in.endpoint.Deduplicate, by, leases)
	return err
}

// decideByClaim brings a delivery that may not be handled to its verdict.
func (h *handlers) decideByClaim(d *delivery) {
	if d.claim == store.Duplicate {
		d.outcome = outcome{verdict: complete}
		h.client.log.Debug("sqlq: removed a message whose id was handled before", "endpoint", h.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id)
		return
	}
	d.wait(waitElse, errInHandsElse)
}

// inboxRider says in a settlement what becomes of claims on ids.
type inboxRider struct {
	claims     store.Claims
	duplicates int // removed without being handled
}

func (i *inboxRider) take(d *delivery, how howEnds) {
	switch {
	case d.claim == store.Duplicate && how == handled:
		i.duplicates++
	case d.claim != store.Claimed:
	case how == goesOn:
		i.claims.Leasing = append(i.claims.Leasing, d.stored.id)
	case how == notHandled:
		i.claims.Unhandled = append(i.claims.Unhandled, d.stored.id)
	default:
		i.claims.Handled = append(i.claims.Handled, d.stored.id)
	}
}

func (*inboxRider) queueBefore(*settlement, *pgx.Batch) {}

// queueAfter: the claim of a held message that was handled is left as it is, the transaction makes it last.
func (i *inboxRider) queueAfter(s *settlement, b *pgx.Batch) {
	leased, by := s.from.Instance != 0, s.by
	if leased {
		by = s.from.Instance
	} else {
		i.claims.Handled = nil
	}
	if i.claims.Any() {
		s.client.store.Inbox.Settle(b, s.from.Queue, s.in.endpoint.Deduplicate, i.claims, leased, by)
	}
}

// reclaim claims the id of a held delivery anew, whose claim went with its transaction, and says whether it is to be settled.
// If another of its id was handled meanwhile this one is a duplicate after all, and what its handler sent is not stored.
func (l *link) reclaim(ctx context.Context, in *instance, d *delivery) (settle bool, err error) {
	if d.claim != store.Claimed {
		return true, nil
	}
	if d.outcome.verdict != complete {
		d.claim = store.Unclaimed
		return true, nil
	}
	claims, err := l.run.client.store.Inbox.Claim(ctx, l.conn, in.endpoint.Name, [][16]byte{d.stored.id}, in.endpoint.Deduplicate, 0, nil)
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

// claimAnew is reclaim for a delivery whose handler still runs, and which is about to be leased.
func (l *link) claimAnew(ctx context.Context, in *instance, d *delivery) (mine bool, err error) {
	claims, err := l.run.client.store.Inbox.Claim(ctx, l.conn, in.endpoint.Name, [][16]byte{d.stored.id}, in.endpoint.Deduplicate, 0, nil)
	return claims[d.stored.id] == store.Claimed, err
}

// unclaim takes back the claims of a batch whose transaction a handler has ended: if it committed, they stand, and would have
// messages taken for handled that are not. It leaves those alone that others have fetched meanwhile.
func (l *link) unclaim(b *batch) {
	if b.in.endpoint.Deduplicate == 0 {
		return
	}
	ctx, cancel := l.timeout()
	defer cancel()
	if err := l.takeBackClaims(ctx, b); err != nil {
		l.run.client.log.Error("sqlq: cannot take back the claims on messages whose transaction a handler has ended; if it committed they are taken for handled",
			"endpoint", b.in.endpoint.Name, "err", err)
		l.rollback()
	}
}

func (l *link) takeBackClaims(ctx context.Context, b *batch) error {
	in, st := b.in, l.run.client.store
	ids, seqs := map[int64][16]byte{}, []int64{}
	for _, d := range b.all {
		if d.claim == store.Claimed {
			ids[d.seq] = d.stored.id
			seqs = append(seqs, d.seq)
		}
	}
	if err := l.conn.BeginReceive(ctx); err != nil {
		return err
	}
	free, err := st.Ready.Relock(ctx, l.conn, in.endpoint.Name, seqs)
	if err != nil {
		return err
	}
	s := newSettlement(in, b.custody, b.custody.from(in, nil))
	for _, seq := range free {
		s.inbox.claims.Unhandled = append(s.inbox.claims.Unhandled, ids[seq])
	}
	return l.commit(ctx, in, s)
}
