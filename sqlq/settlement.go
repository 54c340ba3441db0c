package sqlq

import (
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
	window   time.Duration // of the endpoint that deduplicates
	holds    bool          // the rows have been locked since their fetch, by this transaction
	complete []int64
	rows     []pgtype.TID // instead, of what it holds
	retries  []store.Retry
	failures []store.Failure
	removed  []*store.Message // of failures, what the database has no more
	gone     int              // completed, and removed at their fetch
	expired  int              // completed without being handled: their time to live had passed

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
	return &settlement{client: in.client, from: from, window: in.endpoint.Deduplicate}
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
		f := describe(d.Type, d.err)
		f.Key, f.Attempts, f.Endpoint, f.Host = d.key(), d.made(), in.endpoint.Name, s.client.config.host
		f.FirstFailedAt, f.Replays, f.Headers = d.history()
		s.failures = append(s.failures, f)
		if d.removed != nil {
			s.removed = append(s.removed, d.removed)
		}
	default:
		retry := store.Retry{Key: d.key(), Attempt: d.made(), Delay: d.outcome.delay, Error: clip(d.err.Error(), maxErrorText)}
		if d.claim == store.InHandsElse {
			s.waits++ // it has not failed
		} else {
			retry.Headers = d.headersUpToFirstFailure()
		}
		s.retries = append(s.retries, retry)
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
	if len(s.retries) > 0 {
		st.Delay(b, s.from, s.retries, s.notify)
	}
	if len(s.removed) > 0 {
		if err := st.FailRemoved(b, s.from.Queue, s.removed, s.failures); err != nil {
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

// count adds what was committed to the instance's statistics.
func (in *instance) count(s *settlement) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.done.Handled += uint64(len(s.complete) + len(s.rows) + s.gone - s.duplicates - s.expired)
	in.done.Expired += uint64(s.expired)
	in.done.Duplicates += uint64(s.duplicates)
	in.done.Retried += uint64(len(s.retries) - s.waits)
	in.done.Failed += uint64(len(s.failures))
	in.done.Leased += uint64(len(s.leases))
}
