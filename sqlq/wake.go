package sqlq

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// wake wakes sleeping receivers of committed messages, and returns when it has. A receiver of this process that sleeps on
// the queue is enough; for others it notifies, apart from every transaction that writes. A failure loses no message:
// polling finds it.
func (c *Client) wake(channels ...string) {
	channels = slices.DeleteFunc(channels, func(channel string) bool { return channel == "" || c.wakeLocal(channel) })
	if len(channels) > 0 {
		c.wakes.wake(channels)
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
	w.mu.Lock()
	if w.next == nil {
		w.next = &wakeUp{done: make(chan struct{})}
	}
	mine := w.next
	mine.channels = append(mine.channels, channels...)
	if w.underWay {
		w.mu.Unlock()
		<-mine.done
		return
	}
	w.underWay, w.next = true, nil
	w.mu.Unlock()
	w.run(mine)
}

// run runs a wake-up and starts the next.
func (w *wakes) run(this *wakeUp) {
	slices.Sort(this.channels)
	w.notify(slices.Compact(this.channels))
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
	// Of nobody who shares the statement the context may end it.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.store.Notify(ctx, c.pool, channels); err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("sqlq: cannot wake receivers; they will find the messages by polling", "err", err)
	}
}
