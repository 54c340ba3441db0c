package wakeup

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

const (
	// pollNet is the default of Config.PollInterval if LISTEN works.
	PollNet = 30 * time.Second
	// pollDeaf is the default of Config.PollInterval if LISTEN does not work.
	PollDeaf = time.Second
	// lookForPooler is how often a process that polls because of a transaction pooler checks whether it is still there.
	lookForPooler = 5 * time.Minute
)

// onlyPoll logs once that endpoints poll, and why.
func (l *Listener) onlyPoll(ctx context.Context) {
	if l.pooled.Swap(true) {
		return
	}
	l.silent = true
	every := l.PollInterval
	if every == 0 {
		every = PollDeaf
	}
	advice := "set Config.ListenURL to a URL that leads to the database itself"
	if l.HasListenURL {
		advice = "Config.ListenURL leads through one too: let it lead to the database itself"
	}
	l.Log.Warn("sqlq: polling for messages instead of being woken", "err", session.ErrPooled, "every", every, "advice", advice, "endpoints", namesOf(l.all()))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if delayed, _, err := l.Store.Tables.Shared(ctx, l.Pool); err == nil { // so that this process's own mover is woken
		l.hear(delayed.Channel())
	}
}

// onlyPolls reports whether only polling is possible, so that Config.PollInterval applies, whatever its value.
func (l *Listener) onlyPolls() bool { return l.pooled.Load() }

func (l *Listener) pollInterval() time.Duration {
	if d := l.PollInterval; d > 0 {
		return d
	}
	return PollNet
}

// poll is the safety net for wake-ups: one statement for all queues whose endpoints sleep.
func (l *Listener) poll(ctx context.Context, c *session.Conn) error {
	waiting, err := l.waiting(ctx, c, l.which(func(p *post) bool { return p.rests() != Deaf }))
	if err != nil {
		return err
	}
	for _, bell := range waiting {
		bell.Ring(Found)
	}
	l.noteChanged()
	return nil
}

// waiting returns the endpoints whose queues contain messages, held ones included. A locked table is skipped: no receiver could
// fetch from it.
func (l *Listener) waiting(ctx context.Context, c *session.Conn, bells []*Bell) (has []*Bell, err error) {
	st := l.Store
	for range 2 {
		if len(bells) == 0 {
			return nil, nil
		}
		waiting, err := st.Tables.Waiting(ctx, c, namesOf(bells))
		if err == nil {
			for i, bell := range bells {
				if waiting[i] {
					has = append(has, bell)
				}
			}
			return has, nil
		}
		if session.State(err) != session.LockNotAvailable {
			return nil, fmt.Errorf("poll: %w", err)
		}
		locked, err := st.Tables.Locked(ctx, c, l.tablesOf(bells))
		if err != nil {
			return nil, fmt.Errorf("poll: look for locked queues: %w", err)
		}
		var free []*Bell
		for i, bell := range bells {
			if !locked[i] {
				free = append(free, bell)
			}
		}
		bells = free
	}
	return nil, nil // the locks change too quickly; the next poll will do
}

func namesOf(bells []*Bell) []string {
	names := make([]string, len(bells))
	for i, b := range bells {
		names[i] = b.Queue
	}
	return names
}
