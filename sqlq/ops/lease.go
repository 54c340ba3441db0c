package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// releaseBatch is how many messages one transaction of Leases.Release moves.
const releaseBatch = 1000

// Lease is a leased message: one whose handler is slow, or, for a while after a crash, any message that is being handled.
type Lease struct {
	Number   int64         // by which it can be named
	Message  string        // id
	Type     string        // the message type
	Queue    string        // from which it came
	Instance int           // the number of the instance that holds it
	Host     string        // of the instance; "": nothing is known of it any more
	PID      int           // its process there
	State    InstanceState // of the instance
	Attempt  int           // attempts that have ended
	SentAt   time.Time     // by the database's clock
	LeasedAt time.Time     // when the instance acquired the lease
	For      time.Duration // since then, by the clock of the database
}

// MarshalJSON writes the lease as sqlq lease ls -o json does.
func (l Lease) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Number   int64         `json:"lease"`
		Message  string        `json:"id"`
		Type     string        `json:"type"`
		Queue    string        `json:"queue"`
		Attempt  int           `json:"attempts"`
		SentAt   time.Time     `json:"sent_at"`
		LeasedAt time.Time     `json:"leased_at"`
		For      float64       `json:"leased_seconds"`
		Instance int           `json:"instance"`
		State    InstanceState `json:"instance_state"`
		Host     string        `json:"host"`
		PID      int           `json:"pid"`
	}{l.Number, l.Message, l.Type, l.Queue, l.Attempt, timeAsJSON(l.SentAt), timeAsJSON(l.LeasedAt), l.For.Seconds(), l.Instance, l.State, l.Host, l.PID})
}

// LeaseFilter chooses leased messages: those that fit every field that is set.
type LeaseFilter struct {
	Names    []string      // by number of the lease or id of the message: any of them
	Queue    string        // "": of all
	Type     string        // "": of all
	Instance int           // 0: of all
	Age      time.Duration // leased for at least that long
	Limit    int           // maximum number; 0: no limit. Leases.Release has none.
}

func (f LeaseFilter) chosen() (query.LeaseFilter, error) {
	chosen := query.LeaseFilter{Queue: f.Queue, Type: f.Type, Instance: int32(f.Instance), Age: f.Age}
	for _, name := range f.Names {
		if number, err := strconv.ParseInt(name, 10, 64); err == nil {
			chosen.Leases = append(chosen.Leases, number)
			continue
		}
		id, err := parseID(name)
		if err != nil {
			return query.LeaseFilter{}, fmt.Errorf("%q names no leased message: give the number of its lease or its id, which is a UUID", name)
		}
		chosen.IDs = append(chosen.IDs, id)
	}
	return chosen, nil
}

// ChoosesAll reports whether the filter chooses every leased message.
func (f LeaseFilter) ChoosesAll() bool {
	return len(f.Names) == 0 && f.Queue == "" && f.Type == "" && f.Instance == 0 && f.Age == 0
}

// NoLeaseError is returned when some of the named messages are not leased. The others are released all the same.
type NoLeaseError struct {
	Missing []string // the numbers and ids that were named
}

// Error says what happened, where, and what to do about it.
func (e *NoLeaseError) Error() string {
	return "not leased (see: sqlq lease ls): " + strings.Join(e.Missing, ", ")
}

// List returns the leased messages that a filter chooses, the oldest lease first. A queue that does not exist is a *NoQueueError.
func (o Leases) List(ctx context.Context, f LeaseFilter) ([]Lease, error) {
	return o.list(ctx, f, nil, Filter{Limit: f.Limit}.limit())
}

// Page returns a page of the leased messages that a filter chooses, in the order of List: the first Limit of them, default 50,
// behind opts.After. There are no more of them than handlers run: opts.Budget does not matter.
func (o Leases) Page(ctx context.Context, f LeaseFilter, opts PageOptions) (page Page[Lease], err error) {
	var after *query.LeaseKey
	if opts.After != "" {
		at, number, err := opts.After.read('l')
		if err != nil {
			return page, err
		}
		after = &query.LeaseKey{LeasedAt: at, Lease: number}
	}
	size := Filter{Limit: f.Limit}
	leases, err := o.list(ctx, f, after, size.pageSize()+1)
	return wholePage(leases, size, func(l Lease) Cursor { return cursor('l', l.LeasedAt, l.Number) }), err
}

func (o Leases) list(ctx context.Context, f LeaseFilter, after *query.LeaseKey, limit int) ([]Lease, error) {
	chosen, err := f.chosen()
	if err != nil {
		return nil, err
	}
	chosen.After = after
	leased, err := o.store.ListLeased(ctx, o.pool, chosen, limit)
	if err != nil {
		return nil, fmt.Errorf("list leased messages: %w", err)
	}
	if len(leased) == 0 && after == nil {
		return nil, o.checkQueue(ctx, f.Queue)
	}
	leases := make([]Lease, len(leased))
	for i, l := range leased {
		leases[i] = Lease{Number: l.Lease, Message: l.ID, Type: l.Type, Queue: l.Queue, Instance: int(l.Instance), Host: l.Host, PID: l.PID,
			State: InstanceState(l.State), Attempt: l.Attempt, SentAt: l.SentAt, LeasedAt: l.LeasedAt, For: time.Duration(l.For) * time.Microsecond}
	}
	return leases, nil
}

// PreviewRelease returns the leased messages that Leases.Release would put back into their queues, and changes nothing. Names
// that are not leased are a *NoLeaseError, together with the rest.
func (o Leases) PreviewRelease(ctx context.Context, f LeaseFilter) ([]Lease, error) {
	f.Limit = 0
	leases, err := o.List(ctx, f)
	if err != nil {
		return nil, err
	}
	unnamed, err := o.notLeased(ctx, f)
	return leases, errors.Join(err, unnamed)
}

// Released says what Leases.Release did.
type Released struct {
	Released int64 `json:"released"` // messages that are in their queues again
	Busy     int64 `json:"busy"`     // left, because they are being settled, or handled in a transaction
}

// Release puts the leased messages that a filter chooses back into their queues, and returns how many, also together
// with an error. Messages that are leased after it began are left alone. Their attempts stay as they are. Those of an
// instance that is dead are handled alone from now on, by lease, because one of them may have killed it, as when another
// instance finds it dead.
//
// A message of an instance that lives is handled twice, unless its handler has not begun: the running handler is not
// stopped. What it returns is dropped, and so is what it sends through its delivery.
//
// It works in batches, and can be called again when it was interrupted. Named messages that are not leased are
// a *NoLeaseError; the others are released all the same.
func (o Leases) Release(ctx context.Context, f LeaseFilter) (released Released, err error) {
	chosen, err := f.chosen()
	if err != nil {
		return released, err
	}
	unnamed, err := o.notLeased(ctx, f)
	if err != nil {
		return released, err
	}
	queues, err := o.store.LeasedByQueue(ctx, o.pool, chosen)
	if err != nil {
		return released, fmt.Errorf("count leased messages: %w", err)
	}
	if len(queues) == 0 {
		return released, errors.Join(unnamed, o.checkQueue(ctx, f.Queue))
	}
	var wanted int64
	for _, q := range queues {
		wanted += q.N
		chosen.UpTo = max(chosen.UpTo, q.Last)
	}
	op := query.Operation{Wanted: &wanted}
	if f.Queue != "" {
		op.Queue = &f.Queue
	}
	id, err := o.begin(ctx, kindRelease, f, op)
	if err != nil {
		return released, err
	}
	for _, q := range queues {
		var n int64
		if n, err = o.releaseQueue(ctx, q.Queue, chosen, id); err != nil {
			err = o.noQueue(ctx, q.Queue, fmt.Errorf("release leased messages of queue %q: %w", q.Queue, err))
		}
		if released.Released += n; err != nil {
			break
		}
	}
	if endErr := o.end(ctx, id, err); err == nil {
		err = endErr
	}
	if err != nil {
		return released, err
	}
	left, err := o.store.LeasedByQueue(ctx, o.pool, chosen)
	if err != nil {
		return released, fmt.Errorf("count leased messages: %w", err)
	}
	for _, q := range left {
		released.Busy += q.N
	}
	return released, unnamed
}

func (o Leases) releaseQueue(ctx context.Context, queue string, chosen query.LeaseFilter, operation int64) (released int64, err error) {
	return o.batches(ctx, running{id: operation, kind: kindRelease}, releaseBatch, func(tx pgx.Tx, _ query.OperationPlace, most int64, _ bound) (step, error) {
		n, channel, err := o.store.ReleaseLeased(ctx, tx, queue, chosen, operation, int(most))
		s := step{n: n, end: n < most}
		if channel != "" {
			s.channels = []string{channel}
		}
		return s, err
	}, nil)
}

// notLeased returns a *NoLeaseError when some of the names that a filter has are not leased.
func (o Leases) notLeased(ctx context.Context, f LeaseFilter) (unnamed, err error) {
	if len(f.Names) == 0 {
		return nil, nil
	}
	leases, err := o.List(ctx, LeaseFilter{Names: f.Names})
	if err != nil {
		return nil, err
	}
	var lacking NoLeaseError
	for _, name := range f.Names {
		id, _ := parseID(name)
		if !slices.ContainsFunc(leases, func(l Lease) bool { return l.Message == id || strconv.FormatInt(l.Number, 10) == name }) {
			lacking.Missing = append(lacking.Missing, name)
		}
	}
	if lacking.Missing == nil {
		return nil, nil
	}
	return &lacking, nil
}
