package sqlq

import (
	"context"
	"fmt"
	"time"
)

const (
	// pollNet is the default of Config.PollInterval where LISTEN works.
	pollNet = 30 * time.Second
	// pollDeaf is the default of Config.PollInterval where LISTEN does not work.
	pollDeaf = time.Second
	// lookForPooler is how often a process that polls because of a transaction pooler looks whether it is still there.
	lookForPooler = 5 * time.Minute
)

// onlyPoll says once that endpoints poll, and why.
func (l *listener) onlyPoll(ctx context.Context) {
	c := l.run.client
	if l.pooled.Swap(true) {
		return
	}
	l.silent = true
	every := c.config.PollInterval
	if every == 0 {
		every = pollDeaf
	}
	advice := "set Config.ListenURL to a URL that leads to the database itself"
	if c.config.ListenURL != "" {
		advice = "Config.ListenURL leads through one too: let it lead to the database itself"
	}
	c.log.Warn("sqlq: polling for messages instead of being woken", "err", errPooled, "every", every, "advice", advice, "endpoints", l.run.endpoints())
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if delayed, _, err := c.store.Tables(ctx, c.pool); err == nil { // so that this process's own mover is told
		l.mu.Lock()
		l.delayed = delayed.Channel()
		l.mu.Unlock()
	}
}

// onlyPolls says that nothing but polling is possible, so that Config.PollInterval counts, whatever it is.
func (l *listener) onlyPolls() bool { return l.pooled.Load() }

func (l *listener) pollInterval() time.Duration {
	if d := l.run.client.config.PollInterval; d > 0 {
		return d
	}
	return pollNet
}

// poll is the net under the wake-ups: one statement for all queues that sleep.
func (l *listener) poll(ctx context.Context, c *conn) error {
	waiting, err := l.waiting(ctx, c, l.which(func(p *post) bool { return p.rests() != deaf }))
	if err != nil {
		return err
	}
	for _, in := range waiting {
		in.mu.Lock()
		in.start.lastZero = time.Time{} // what was put left of the others is found too
		in.mu.Unlock()
		in.wake()
		in.client.config.observing.woken(in, WokenByPolling)
	}
	l.mu.Lock()
	l.changed = true
	l.mu.Unlock()
	return nil
}

// waiting returns those of the instances in whose queues there are messages, held ones included. A table that somebody has
// locked is passed over: nobody could receive from it.
func (l *listener) waiting(ctx context.Context, c *conn, ins []*instance) (has []*instance, err error) {
	st := l.run.client.store
	for range 2 {
		if len(ins) == 0 {
			return nil, nil
		}
		waiting, err := st.Waiting(ctx, c, namesOf(ins))
		if err == nil {
			for i, in := range ins {
				if waiting[i] {
					has = append(has, in)
				}
			}
			return has, nil
		}
		if sqlState(err) != lockNotAvailable {
			return nil, fmt.Errorf("poll: %w", err)
		}
		locked, err := st.Locked(ctx, c, l.tablesOf(ins))
		if err != nil {
			return nil, fmt.Errorf("poll: look for locked queues: %w", err)
		}
		var free []*instance
		for i, in := range ins {
			if !locked[i] {
				free = append(free, in)
			}
		}
		ins = free
	}
	return nil, nil // the locks change too quickly; there is a next time
}
