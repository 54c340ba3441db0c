package ops

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// InstanceState is how an instance stands.
type InstanceState string

const (
	InstanceRunning InstanceState = "running" // its heartbeat is recent
	InstanceLate    InstanceState = "late"    // no heartbeat for longer than its lease time; no other process has noticed yet
	InstanceCrashed InstanceState = "crashed" // it was found dead, and its leases were taken back
	InstanceDrained InstanceState = "drained" // it shut down cleanly
	InstanceGone    InstanceState = "gone"    // of a lease: its instance is no longer known
)

// Lives reports whether the instance may still be running.
func (s InstanceState) Lives() bool { return s == InstanceRunning || s == InstanceLate }

// Instance is one process of an endpoint. A process that runs several endpoints has an instance for each. Its counters are as of
// LastSeen.
type Instance struct {
	ID          int            // its number
	Endpoint    string         // which it runs
	Host        string         // on which it runs
	PID         int            // its process there
	Version     string         // of the program
	Concurrency int            // how many messages it handles at a time
	State       InstanceState  // how it stands
	StartedAt   time.Time      // when it began
	LastSeen    time.Time      // its last heartbeat
	EndedAt     *time.Time     // when it shut down or was found dead; nil: neither
	InHand      int            // running handlers
	Rate        float64        // messages handled per second
	Handled     int64          // since it began, duplicates that were dropped included
	Failed      int64          // likewise: failed for good, or to be retried later
	Expired     int64          // likewise: dropped unhandled, because their time to live had passed
	Slow        int            // handlers that have run for longer than Endpoint.SlowAfter
	Slowest     *time.Duration // how long the longest of the running handlers has run; nil: none runs
}

// MarshalJSON writes the instance as sqlq instance ls -o json does.
func (i Instance) MarshalJSON() ([]byte, error) {
	return encode(struct {
		Endpoint    string        `json:"endpoint"`
		ID          int           `json:"id"`
		Host        string        `json:"host"`
		PID         int           `json:"pid"`
		Version     string        `json:"version"`
		State       InstanceState `json:"state"`
		StartedAt   time.Time     `json:"started_at"`
		LastSeen    time.Time     `json:"last_seen_at"`
		EndedAt     *time.Time    `json:"ended_at"`
		Concurrency int           `json:"concurrency"`
		InHand      int           `json:"in_hand"`
		Rate        float64       `json:"rate_per_second"`
		Handled     int64         `json:"handled"`
		Failed      int64         `json:"failed"`
		Expired     int64         `json:"expired"`
		Slow        int           `json:"slow"`
		Slowest     *float64      `json:"slowest_seconds"`
	}{i.Endpoint, i.ID, i.Host, i.PID, i.Version, i.State, timeAsJSON(i.StartedAt), timeAsJSON(i.LastSeen), optionalTime(i.EndedAt), i.Concurrency,
		i.InHand, i.Rate, i.Handled, i.Failed, i.Expired, i.Slow, optionalSeconds(i.Slowest)})
}

// InstanceFilter chooses instances. The zero value is all that live.
type InstanceFilter struct {
	Endpoint string // "": of all
	All      bool   // also those that ended, which are kept for a day
	Limit    int    // maximum number; 0: no limit
}

// List returns the instances that a filter chooses, by endpoint and the oldest first. Naming an endpoint that
// has neither instances nor a queue, nor failed messages, is a *NoQueueError.
func (o Instances) List(ctx context.Context, f InstanceFilter) ([]Instance, error) {
	return o.list(ctx, f, nil, Filter{Limit: f.Limit}.limit())
}

// Page returns a page of the instances that a filter chooses, in the order of List: the first Limit of them, default 50, behind
// opts.After. The table is small: opts.Budget does not matter.
func (o Instances) Page(ctx context.Context, f InstanceFilter, opts PageOptions) (page Page[Instance], err error) {
	var after *query.InstanceKey
	if opts.After != "" {
		endpoint, id, err := opts.After.readNamed('i')
		if err == nil && (id < math.MinInt32 || id > math.MaxInt32) {
			err = opts.After.wrong()
		}
		if err != nil {
			return page, err
		}
		after = &query.InstanceKey{Endpoint: endpoint, ID: int32(id)}
	}
	size := Filter{Limit: f.Limit}
	instances, err := o.list(ctx, f, after, size.pageSize()+1)
	return wholePage(instances, size, func(i Instance) Cursor { return namedCursor('i', i.Endpoint, int64(i.ID)) }), err
}

func (o Instances) list(ctx context.Context, f InstanceFilter, after *query.InstanceKey, limit int) ([]Instance, error) {
	listed, err := o.store.ListInstances(ctx, o.pool, f.Endpoint, f.All, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	if len(listed) == 0 && after == nil {
		return nil, o.checkQueue(ctx, f.Endpoint)
	}
	instances := make([]Instance, len(listed))
	for i, l := range listed {
		instances[i] = Instance{ID: int(l.ID), Endpoint: l.Endpoint, Host: l.Host, PID: l.PID, Version: l.Version, Concurrency: l.Concurrency,
			State: InstanceState(l.State), StartedAt: l.StartedAt, LastSeen: l.HeartbeatAt, EndedAt: l.DrainedAt, InHand: l.InHand,
			Rate: finite(l.Rate), Handled: l.Handled, Failed: l.Failed, Expired: l.Expired, Slow: l.Slow}
		if l.CrashedAt != nil {
			instances[i].EndedAt = l.CrashedAt
		}
		if l.Slowest != nil {
			d := time.Duration(*l.Slowest) * time.Microsecond
			instances[i].Slowest = &d
		}
	}
	return instances, nil
}

// finite returns a rate that can be written as JSON; 0 for what an instance cannot have meant.
func finite(rate float64) float64 {
	if math.IsNaN(rate) || math.IsInf(rate, 0) {
		return 0
	}
	return rate
}
