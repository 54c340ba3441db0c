package sqlq

import (
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/presence"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// newMember returns what the housekeeping must know of the instance.
func (in *instance) newMember() *presence.Member {
	return &presence.Member{
		Endpoint: in.endpoint.Name, Concurrency: in.endpoint.Concurrency,
		Counters: in.counters,
		Unknown:  func(leases []store.Lease) []int64 { return in.hand.unknown(in.number(), leases) },
		Suspect:  in.suspicion.all, Wake: in.wake,
	}
}

// number is the instance's number in the instance table.
func (in *instance) number() int32 { return in.member.Number() }

// counters returns what the instance has done and is doing, and names handlers in the log that run for long.
func (in *instance) counters(now time.Time) store.Counters {
	c, slow := in.tally(now)
	for _, d := range slow {
		if !d.slow.Swap(true) {
			in.client.log.Warn("sqlq: a handler runs for long", "endpoint", in.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id,
				"for", now.Sub(d.batch.began).Round(time.Second), "attempt", d.made())
		}
	}
	return c
}

// tally returns what the instance has done and is doing since the call before, and its handlers that run for long.
// Those are looked for among what is leased or held. A handler has run since its batch was fetched, or a little shorter.
func (in *instance) tally(now time.Time) (c store.Counters, slow []*delivery) {
	var held []*batch
	var inTx []*delivery
	for _, r := range in.run.receivers.now() {
		if b := r.held.Load(); b != nil && b.in == in {
			held = append(held, b)
		}
		if d := r.handling.Load(); d != nil && d.batch.in == in {
			inTx = append(inTx, d)
		}
	}
	c = in.counts.atHeartbeat(now)
	c.InHand, _ = in.hand.working(in.hasTx)
	note := func(d *delivery) {
		took := now.Sub(d.batch.began)
		c.Slowest = max(c.Slowest, took)
		if in.endpoint.SlowAfter > 0 && took > in.endpoint.SlowAfter {
			c.Slow++
			slow = append(slow, d)
		}
	}
	for _, d := range in.hand.handled(held) {
		note(d)
	}
	for _, d := range inTx {
		note(d)
	}
	return c, slow
}
