package sqlq_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq"
)

// A handler that gives its batch back gives all of it back: the messages wait, nobody's attempt is counted, and none is tried by itself.
func TestBatchGivenBack(t *testing.T) {
	t.Parallel()
	errAway := errors.New("the service is away")
	for name, how := range map[string]struct {
		err   error
		named bool // one of the messages has failed by itself
	}{
		"for a while":  {sqlq.GiveBack(time.Hour, "the service is away"), false},
		"named":        {sqlq.GiveBack(time.Hour, "the service is away"), true},
		"by a policy":  {errAway, false},
		"and wrapped":  {errors.Join(errAway, sqlq.GiveBack(time.Hour, "")), false},
		"named singly": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
				s.after = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
					if how.named {
						ds[3].Fail(errors.New("poisoned"))
					}
					if how.err == nil {
						for _, d := range ds {
							if d.Failure() == nil {
								d.Fail(sqlq.GiveBack(time.Hour, ""))
							}
						}
					}
					return how.err
				}
				const messages = 20
				send(t, s.Client, numbered(messages)...)
				e := s.endpoint(100)
				e.Retry.Decide = func(_ int, err error) sqlq.Decision {
					if errors.Is(err, errAway) {
						return sqlq.Decision{Outcome: sqlq.OutcomeWait, Delay: time.Hour}
					}
					return sqlq.Decision{}
				}
				stop := run(t, s.Client, e)
				eventuallyCount(t, s.pool, 0, `SELECT count(*) FROM sqlq.q_ledger`)
				stop()
				failed := 0
				if how.named {
					failed = 1
				}
				if n := s.count(`SELECT count(*) FROM sqlq.delayed WHERE attempt = 0 AND due_at > now() + interval '50 min'`); n != messages-failed {
					t.Errorf("%d messages wait, want %d", n, messages-failed)
				}
				if n := s.count(`SELECT count(*) FROM sqlq.error WHERE attempts = 1 AND message = 'poisoned'`); n != failed {
					t.Errorf("%d messages have failed, want %d", n, failed)
				}
				s.handledOnce(t)
				if calls := s.sizes(); !slices.Equal(calls, []int{messages}) {
					t.Errorf("calls with so many messages: %v, want one", calls)
				}
			})
		})
	}
}

// What is given back at once comes again, as a batch, and is handled.
func TestBatchGivenBackAtOnce(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		var times atomic.Int32
		s.after = func(context.Context, pgx.Tx, []*sqlq.BatchDelivery[entry]) error {
			if times.Add(1) <= 2 {
				return sqlq.GiveBack(0, "not yet")
			}
			return nil
		}
		const messages = 20
		send(t, s.Client, numbered(messages)...)
		stop := run(t, s.Client, s.endpoint(100))
		s.settled(t)
		stop()
		s.handledOnce(t, upTo(messages)...)
		if calls := s.sizes(); len(calls) > messages/2 {
			t.Errorf("calls with so many messages: %v", calls)
		}
		for n := range messages {
			if attempts := s.attemptsOf(n); slices.Max(attempts) != 1 {
				t.Errorf("attempts of entry %d: %v", n, attempts)
			}
		}
	})
}

// Endpoint.Settled is told of each message of a batch, once, with its own outcome; and not of calls that decided nothing.
func TestBatchSettledIsTold(t *testing.T) {
	t.Parallel()
	inBothKinds(t, sqlq.Config{}, func(t *testing.T, s *batchSite) {
		s.after = func(_ context.Context, _ pgx.Tx, ds []*sqlq.BatchDelivery[entry]) error {
			for _, d := range ds {
				if d.Message.N == 5 {
					return errors.New("poisoned")
				}
			}
			return nil
		}
		var mu sync.Mutex
		told := map[sqlq.Outcome]int{}
		const messages = 20
		send(t, s.Client, numbered(messages)...)
		e := s.endpoint(100)
		e.Settled = func(_ context.Context, m sqlq.Settled) {
			mu.Lock()
			defer mu.Unlock()
			if told[m.Outcome]++; m.Attempt != 1 {
				t.Errorf("%+v", m)
			}
		}
		stop := run(t, s.Client, e)
		eventuallyCount(t, s.pool, 1, `SELECT count(*) FROM sqlq.error`)
		s.settled(t)
		stop()
		mu.Lock()
		defer mu.Unlock()
		if told[sqlq.OutcomeComplete] != messages-1 || told[sqlq.OutcomeFail] != 1 || len(told) != 2 {
			t.Errorf("told %v", told)
		}
	})
}
