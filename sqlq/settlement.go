package sqlq

import (
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// settlement is how the deliveries of one transaction end: what is removed, moved and sent. Everything in it commits
// together.
type settlement struct {
	client   *Client
	from     store.From
	began    time.Time     // zero where nobody wants to know
	window   time.Duration // of the endpoint that deduplicates
	holds    bool          // the rows have been locked since their fetch, by this transaction
	complete []int64
	rows     []pgtype.TID // instead, of what it holds
	retries  []store.Retry
	failures []store.Failure
	failed   []*delivery // of failures
	gone     int         // completed, and removed at their fetch
	expired  int         // completed without being handled: their time to live had passed

	removedFailures, removedRetries []*store.Message // of failures and retries, what the database has no more

	claims     store.Claims // on ids, of what was claimed
	duplicates int          // completed without being handled
	waits      int          // of retries, those that had no attempt
	out        []envelope

	running  []*delivery     // to be leased, their handlers go on
	attempts []int           // of running, noted under the instance's lock: immediate retries count on
	by       int32           // the instance that leases them
	leases   map[int64]int64 // of running, by seq, once queued and run
	channels []string        // to notify after the commit
}

// newSettlement begins a settlement of rows of an instance that are where from says.
func newSettlement(in *instance, from store.From) *settlement {
	return &settlement{client: in.client, from: from, window: in.endpoint.Deduplicate, began: in.client.config.observing.now()}
}

// notify notes a channel that is to be notified after the commit; "" is none.
func (s *settlement) notify(channel string) { s.channels = append(s.channels, channel) }

// add takes a finished delivery in.
func (s *settlement) add(in *instance, d *delivery) {
	s.claimed(d)
	if d.giveUp {
		return // its row stays: held, the commit frees it
	}
	switch d.outcome.verdict {
	case complete:
		if d.expired {
			s.expired++
		}
		switch {
		case d.removed != nil:
			s.gone++
		case s.holds:
			s.rows = append(s.rows, d.row)
		default:
			s.complete = append(s.complete, d.key())
		}
		s.out = append(s.out, d.out...)
	case fail:
		f := describe(d.stored.messageType, d.err)
		f.Key, f.Attempts, f.Endpoint, f.Host = d.key(), d.made(), in.endpoint.Name, s.client.config.host
		f.FirstFailedAt, f.Replays, f.Headers = d.history()
		s.failures, s.failed = append(s.failures, f), append(s.failed, d)
		if d.removed != nil {
			s.removedFailures = append(s.removedFailures, d.removed)
		}
	case wait:
		s.waits++
		s.retries = append(s.retries, store.Retry{Key: d.key(), Attempt: d.before, Delay: d.outcome.delay, Error: clip(d.err.Error(), maxErrorText), Headers: d.waited})
		if d.removed != nil {
			s.removedRetries = append(s.removedRetries, d.removed)
		}
	default:
		s.retries = append(s.retries, store.Retry{Key: d.key(), Attempt: d.made(), Delay: d.outcome.delay, Error: clip(d.err.Error(), maxErrorText),
			Headers: d.headersUpToFirstFailure(), Stamped: true})
	}
}

// queue adds the settlement's statements to a round trip.
func (s *settlement) queue(b *pgx.Batch) error {
	st := s.client.store
	s.client.queueOutgoing(b, s.out, s.notify)
	if len(s.complete) > 0 {
		st.Complete(b, s.from, s.complete)
	}
	if len(s.rows) > 0 {
		st.CompleteHeld(b, s.from.Queue, s.rows)
	}
	if len(s.removedRetries) > 0 {
		st.DelayRemoved(b, s.from.Queue, s.removedRetries, s.retries, s.notify)
	} else if len(s.retries) > 0 {
		st.Delay(b, s.from, s.retries, s.notify)
	}
	if len(s.removedFailures) > 0 {
		if err := st.FailRemoved(b, s.from.Queue, s.removedFailures, s.failures); err != nil {
			return err
		}
	} else if len(s.failures) > 0 {
		if err := st.Fail(b, s.from, s.failures); err != nil {
			return err
		}
	}
	if len(s.running) > 0 {
		seqs := make([]int64, len(s.running))
		for i, d := range s.running {
			seqs[i] = d.seq
		}
		s.leases = map[int64]int64{}
		st.Lease(b, s.from.Queue, s.by, seqs, s.attempts, s.leases)
	}
	s.queueClaims(b)
	return nil
}

// count adds what was committed to the instance's statistics, and names the messages that have failed.
func (in *instance) count(s *settlement) {
	in.client.config.observing.settled(in, s)
	for _, d := range s.failed {
		in.client.config.messages.say(d.ctx, slog.LevelError, "sqlq: message failed", in.endpoint.Name, d.stored.messageType, d.err, "message", d.stored.id, "attempts", d.made())
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range s.failed {
		delete(in.refusals.times, d.stored.id)
	}
	in.done.Handled += uint64(len(s.complete) + len(s.rows) + s.gone - s.duplicates - s.expired)
	in.done.Expired += uint64(s.expired)
	in.done.Duplicates += uint64(s.duplicates)
	in.done.Retried += uint64(len(s.retries) - s.waits)
	in.done.Failed += uint64(len(s.failures))
	in.done.Leased += uint64(len(s.leases))
}
