package sqlq

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// wakeOthers wakes an endpoint's receivers in other processes: there are messages that this one leaves to them.
func (r *runner) wakeOthers(in *instance) {
	if r.listener.hears() {
		r.listener.overflow(in)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.client.store.WakeQueues(ctx, r.client.pool, []string{in.endpoint.Name}); err != nil {
			r.client.log.Debug("sqlq: cannot wake receivers; they will find the messages by polling", "err", err)
		}
	}()
}

// wakeLocal wakes an instance of this process that sleeps on a channel; false where there is none, or where it would not
// fetch any more.
func (l *listener) wakeLocal(channel string) bool {
	l.mu.Lock()
	in := l.byChannel[channel]
	sleeps := in != nil && l.howRests(in) != deaf
	delayed := channel == l.delayed
	l.mu.Unlock()
	if sleeps && in.hasRoom() && !l.run.schedule.isDraining() {
		in.wake()
		return true
	}
	if delayed && l.run.keeper.leadsNow() {
		l.run.keeper.dueSoon()
		return true
	}
	return false
}

// notify has channels notified soon, on the listener's connection; false where that cannot be relied on.
func (l *listener) notify(channels []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected || l.late {
		return false
	}
	l.wakes = append(l.wakes, channels...)
	l.poke()
	return true
}

// sendWakes notifies the channels that are to be notified.
func (l *listener) sendWakes(ctx context.Context, c *session.Conn) error {
	l.mu.Lock()
	channels := l.wakes
	l.wakes = nil
	l.mu.Unlock()
	if len(channels) == 0 {
		return nil
	}
	slices.Sort(channels)
	channels = slices.Compact(channels)
	for _, channel := range channels {
		if l.keepsWatch(channel) {
			l.notified(channel) // of its own notifications it takes no notice
		}
	}
	if err := l.run.client.store.Notify(ctx, c, channels); err != nil {
		l.run.client.wakes.Ask(channels)
		return fmt.Errorf("wake receivers: %w", err)
	}
	return nil
}
