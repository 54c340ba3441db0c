package sqlq

import (
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/internal/wakeup"
)

// Stats reports the state of a Client's endpoints, and what they have done since Run began.
type Stats struct {
	// Listening reports whether LISTEN works, so that senders wake the endpoints. Otherwise they poll: see Config.PollInterval.
	Listening bool
	// Endpoints are those that Run and Start have taken up, in the order in which they began; empty while none runs.
	Endpoints []EndpointStats
}

// EndpointStats is the state of one endpoint of this process, and counts what it has done.
type EndpointStats struct {
	Name string // of the endpoint
	// Waits is how the endpoint learns of the next message.
	Waits Waits
	// Running counts running handlers, Waiting messages in hand whose handlers have not begun.
	Running, Waiting int

	// Fetches counts statements that fetched messages, Received the messages that they returned, including
	// those that were released again unhandled.
	Fetches, Received uint64
	// Wakes counts notifications by senders and by other processes.
	Wakes uint64
	// Handled, Retried and Failed count settled messages: removed after success, stored for a delayed retry, and moved to the
	// error table.
	Handled, Retried, Failed uint64
	// Expired counts messages that were removed without being handled, or handled again, because their time to live had
	// passed when they were received. Those that the leading process sweeps are only in its log.
	Expired uint64
	// Duplicates counts messages that were removed without being handled, because one with the same id was handled within
	// Endpoint.Deduplicate.
	Duplicates uint64
	// Leased counts messages that moved to the leased table because their handlers were still running at the hold limit.
	Leased uint64
}

// Waits says how an endpoint learns of the next message.
type Waits string

const (
	// Awake: it looks by itself, because there are messages, or were a moment ago. Senders need not notify it.
	Awake Waits = "awake"
	// Notified: it sleeps, and senders wake it.
	Notified Waits = "notified"
	// OnCall: it sleeps, and the process that senders wake calls it when there is more than that process can handle.
	OnCall Waits = "on call"
	// Polls: LISTEN does not work, so it looks every Config.PollInterval.
	Polls Waits = "polls"
	// Paused: an operator has paused its queue. It does not look for messages until the queue is resumed.
	Paused Waits = "paused"
)

// Stats returns the current state of the Client's endpoints, without asking the database.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	r := c.runner
	var instances []*instance
	if r != nil {
		instances = r.instances.now()
	}
	c.mu.Unlock()
	if len(instances) == 0 {
		return Stats{}
	}
	s := Stats{Listening: r.listener.Hears()}
	for _, in := range instances {
		if in.phase.isStarting() {
			continue
		}
		e := in.counts.now()
		e.Name = in.endpoint.Name
		e.Running, e.Waiting = in.hand.working(in.hasTx)
		switch how := in.bell.Rests(); {
		case in.lookout.isPaused():
			e.Waits = Paused
		case !s.Listening || in.bell.IsRefused():
			e.Waits = Polls
		case how == wakeup.Watching:
			e.Waits = Notified
		case how == wakeup.OnCall:
			e.Waits = OnCall
		default:
			e.Waits = Awake
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

// counts is what an instance has done since Run began. mu guards all of it; it is one of the last in the order of locks.
type counts struct {
	mu        ranked[ofPart]
	done      EndpointStats
	handled   uint64 // by countedAt, the last heartbeat
	countedAt time.Time
}

// woken counts a notification.
func (c *counts) woken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Wakes++
}

// fetched counts a fetch that brought so many messages.
func (c *counts) fetched(messages int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Fetches++
	c.done.Received += uint64(messages)
}

// over counts a message that is done without a settle.
func (c *counts) over(expired bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if expired {
		c.done.Expired++
	} else {
		c.done.Handled++
	}
}

// settled counts what a settlement has committed.
func (c *counts) settled(s *settlement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Handled += uint64(len(s.keys) + len(s.rows) + s.gone - s.inbox.duplicates - s.expired)
	c.done.Expired += uint64(s.expired)
	c.done.Duplicates += uint64(s.inbox.duplicates)
	c.done.Retried += uint64(len(s.retries) - s.waits)
	c.done.Failed += uint64(len(s.failures))
	c.done.Leased += uint64(len(s.leases))
}

// now returns what was counted.
func (c *counts) now() EndpointStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// atHeartbeat returns what was counted as the instance table has it, with the rate since the call before.
func (c *counts) atHeartbeat(now time.Time) (n store.Counters) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = store.Counters{Handled: int64(c.done.Handled), Failed: int64(c.done.Retried + c.done.Failed), Expired: int64(c.done.Expired)}
	if since := now.Sub(c.countedAt).Seconds(); !c.countedAt.IsZero() && since > 0 {
		n.Rate = float32(float64(c.done.Handled-c.handled) / since)
	}
	c.countedAt, c.handled = now, c.done.Handled
	return n
}
