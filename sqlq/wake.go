package sqlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// wake wakes sleeping receivers of committed messages. A receiver of this process that sleeps on the queue is enough; for
// others it notifies, apart from every transaction that writes. A failure loses no message: polling finds it.
//
// In a process that handles messages it does not wait: the listener notifies, on its own connection, or, where that is not to
// be relied on, somebody does on the pool's. So no receiver stands still when the program has its pool busy. Run does not
// return before all is done. A process that only sends may end right afterwards; there it returns when it has notified.
func (c *Client) wake(channels ...string) {
	channels = slices.DeleteFunc(channels, func(channel string) bool { return channel == "" || c.wakeLocal(channel) })
	if len(channels) == 0 {
		return
	}
	c.mu.Lock()
	r := c.runner
	c.mu.Unlock()
	switch {
	case r == nil:
		c.wakes.wake(channels)
	case !r.listener.notify(channels):
		c.wakes.ask(channels)
	}
}

func (c *Client) wakeLocal(channel string) bool {
	c.mu.Lock()
	r := c.runner
	c.mu.Unlock()
	return r != nil && r.listener.wakeLocal(channel)
}

// wakes lets wake-ups that happen at the same time share a NOTIFY: each takes a lock that the whole server has one of.
// While one is under way, further ones gather.
type wakes struct {
	notify func(channels []string)

	mu       sync.Mutex
	next     *wakeUp // that gathers; nil: nobody has asked for one
	underWay bool
}

type wakeUp struct {
	channels []string
	done     chan struct{}
}

// wake notifies channels and returns when that is done, by whomever.
func (w *wakes) wake(channels []string) {
	mine, run := w.gather(channels)
	if run {
		w.run(mine)
	}
	<-mine.done
}

// ask has channels notified, and does not wait.
func (w *wakes) ask(channels []string) {
	if mine, run := w.gather(channels); run {
		go w.run(mine)
	}
}

// flush returns when what was asked for before has been done, or when ctx ends.
func (w *wakes) flush(ctx context.Context) {
	w.mu.Lock()
	if !w.underWay {
		w.mu.Unlock()
		return
	}
	if w.next == nil {
		w.next = &wakeUp{done: make(chan struct{})}
	}
	last := w.next
	w.mu.Unlock()
	select {
	case <-last.done:
	case <-ctx.Done():
	}
}

// gather adds channels to the next wake-up; run: it is the caller's to run, because none is under way.
func (w *wakes) gather(channels []string) (mine *wakeUp, run bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next = &wakeUp{done: make(chan struct{})}
	}
	mine = w.next
	mine.channels = append(mine.channels, channels...)
	if w.underWay {
		return mine, false
	}
	w.underWay, w.next = true, nil
	return mine, true
}

// run runs a wake-up and starts the next.
func (w *wakes) run(this *wakeUp) {
	if len(this.channels) > 0 {
		slices.Sort(this.channels)
		w.notify(slices.Compact(this.channels))
	}
	close(this.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.underWay = false
		return
	}
	next := w.next
	w.next = nil
	go w.run(next) // those who gathered wait for it; this one has its result
}

// notify wakes the receivers that listen on the channels.
func (c *Client) notify(channels []string) {
	// No caller's context may cancel a statement that others share.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.store.Notify(ctx, c.pool, channels); err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("sqlq: cannot wake receivers; they will find the messages by polling", "err", err)
	}
}

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
		in.client.config.observing.woken(in, WokenByThisProcess)
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
func (l *listener) sendWakes(ctx context.Context, c *conn) error {
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
		l.run.client.wakes.ask(channels)
		return fmt.Errorf("wake receivers: %w", err)
	}
	return nil
}
