package sqlq

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// settlement is how the deliveries of one transaction end: what is removed, moved and sent. Everything in it commits together.
type settlement struct {
	client  *Client
	in      *instance
	custody custody
	from    store.From
	began   time.Time // zero where nobody wants to know

	keys     []int64      // to be removed
	holds    bool         // the rows have been locked since their fetch, by this transaction
	rows     []pgtype.TID // to be removed, of what it holds
	gone     int          // to be removed, and gone since their fetch
	retries  []store.Retry
	delayed  []*delivery // of retries
	waits    int         // of retries, those that had no attempt
	failures []store.Failure
	failed   []*delivery // of failures
	back     []*delivery // that go back as they came
	expired  int         // removed without being handled: their time to live had passed
	told     []told      // what Endpoint.Settled is told after the commit

	riders   []rider
	room     [2]rider
	outgoing outgoing
	inbox    inboxRider
	channels []string // to notify after the commit

	running  []*delivery     // to be leased, their handlers go on
	attempts []int           // of running, that have ended when the batch is cut: immediate retries count on
	by       int32           // the instance that leases them
	leases   map[int64]int64 // of running, by seq, once queued and run
}

// newSettlement begins a settlement of an instance's deliveries in a custody, whose rows are where from says.
func newSettlement(in *instance, c custody, from store.From) *settlement {
	s := &settlement{client: in.client, in: in, custody: c, from: from, began: in.client.config.observing.now()}
	s.riders = append(s.room[:0], &s.outgoing)
	if in.endpoint.Deduplicate > 0 {
		s.riders = append(s.riders, &s.inbox)
	}
	return s
}

// notify notes a channel that is to be notified after the commit; "" is none.
func (s *settlement) notify(channel string) { s.channels = append(s.channels, channel) }

// ride shows the riders a delivery.
func (s *settlement) ride(d *delivery, how howEnds) {
	for _, r := range s.riders {
		r.take(d, how)
	}
}

// add takes a decided delivery in.
func (s *settlement) add(d *delivery) {
	if s.in.outcomes != nil {
		if t, ok := s.in.outcomes.of(d); ok {
			s.told = append(s.told, t)
		}
	}
	if d.goesBack() {
		s.back = append(s.back, d)
		s.ride(d, notHandled)
		return
	}
	how := notHandled
	switch d.outcome.verdict {
	case complete:
		how = handled
		s.custody.complete(s, d)
	case expire:
		s.expired++
		s.custody.complete(s, d)
	case fail:
		f := describe(d.stored.messageType, d.err)
		f.Key, f.Attempts, f.Endpoint, f.Host = d.custody.key(d), d.made(), s.in.endpoint.Name, s.client.config.host
		f.FirstFailedAt, f.Replays, f.Headers = d.history()
		s.failures, s.failed = append(s.failures, f), append(s.failed, d)
	default:
		retry := store.Retry{Key: d.custody.key(d), Delay: d.outcome.delay, Error: clip(d.err.Error(), maxErrorText)}
		if d.outcome.verdict == wait {
			s.waits++
			retry.Attempt, retry.Headers = int(d.before), d.waited
		} else {
			retry.Attempt, retry.Headers, retry.Stamped = d.made(), d.headersUpToFirstFailure(), true
		}
		if retry.Headers == nil && d.crashes { // the row's say that the process died in this attempt, which it has not
			retry.Headers, retry.Stamped = d.headersAsFetched(), false
		}
		s.retries, s.delayed = append(s.retries, retry), append(s.delayed, d)
	}
	s.ride(d, how)
}

// queue adds the settlement's statements to a round trip.
func (s *settlement) queue(b *pgx.Batch) error {
	for _, r := range s.riders {
		r.queueBefore(s, b)
	}
	if err := s.custody.queue(s, b); err != nil {
		return err
	}
	for _, r := range s.riders {
		r.queueAfter(s, b)
	}
	return nil
}

// queueEnds adds the statements that remove and move rows, for custodies in which there are rows.
func (s *settlement) queueEnds(b *pgx.Batch) error {
	st := s.client.store
	if len(s.keys) > 0 {
		st.InHand.Complete(b, s.from, s.keys)
	}
	if len(s.retries) > 0 {
		st.InHand.Delay(b, s.from, s.retries, s.notify)
	}
	if len(s.failures) > 0 {
		return st.InHand.Fail(b, s.from, s.failures)
	}
	return nil
}

// count adds what was committed to the instance's statistics, and names the messages that have failed.
func (in *instance) count(s *settlement) {
	in.client.config.observing.settled(in, s)
	for _, d := range s.failed {
		in.client.config.messages.say(d.ctx, slog.LevelError, "sqlq: message failed", in.endpoint.Name, d.stored.messageType, d.err, "message", d.stored.id, "attempts", d.made())
	}
	in.refusals.over(s.failed)
	in.counts.settled(s)
	in.outcomes.put(s.told)
}
