package wakeup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// wakeOthers wakes an endpoint's receivers in other processes, for messages that this one leaves to them.
func (l *Listener) wakeOthers(bell *Bell) {
	if l.Hears() {
		l.overflow(bell)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.Store.Wakeups.Wake(ctx, l.Pool, []string{bell.Queue}); err != nil {
			l.Log.Debug("sqlq: cannot wake receivers; they will find the messages by polling", "err", err)
		}
	}()
}

// Wake wakes an endpoint of this process that sleeps on a channel; false if there is none, or if it would no longer
// fetch.
func (l *Listener) Wake(channel string) bool {
	l.mu.Lock()
	bell := l.byChannel[channel]
	sleeps := bell != nil && l.howRests(bell) != Deaf
	delayed := channel == l.delayed
	l.mu.Unlock()
	if sleeps && bell.HasRoom() && !bell.IsDraining() {
		bell.Ring(Sent)
		return true
	}
	if delayed && l.Leads() {
		l.DueSoon()
		return true
	}
	return false
}

// sendWakes notifies the requested channels.
func (l *Listener) sendWakes(ctx context.Context, c *session.Conn) error {
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
			l.notified(channel) // it ignores notifications from its own session
		}
	}
	if err := l.Store.Wakeups.Notify(ctx, c, channels); err != nil {
		l.NotifyOtherwise(channels)
		return fmt.Errorf("wake receivers: %w", err)
	}
	return nil
}
