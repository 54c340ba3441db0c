package sending

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Wakes wakes the sleeping receivers of committed messages. Concurrent wake-ups share a NOTIFY, because each NOTIFY takes a
// server-wide lock. While one is in flight, further ones gather.
type Wakes struct {
	notify    func(channels []string)
	receivers atomic.Pointer[Receivers] // nil: this process only sends

	mu       sync.Mutex
	next     *wakeUp // the one that gathers; nil: none was asked for
	inFlight bool
}

// Receivers are the receivers of this process, as known by the session that listens for them.
type Receivers struct {
	Wake   func(channel string) bool    // wakes one that sleeps on a channel, if there is one that would fetch
	Notify func(channels []string) bool // arranges for channels to be notified soon; false if that cannot be relied on
}

type wakeUp struct {
	channels []string
	done     chan struct{}
}

// NewWakes returns a Wakes that notifies through the pool.
func NewWakes(st *store.Schema, pool *pgxpool.Pool, log *slog.Logger) *Wakes {
	return &Wakes{notify: func(channels []string) {
		// No caller's context may cancel a statement that others share.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := st.Wakeups.Notify(ctx, pool, channels); err != nil && !errors.Is(err, context.Canceled) {
			log.Warn("sqlq: cannot wake receivers; they will find the messages by polling", "err", err)
		}
	}}
}

// Through makes wake-ups go to the receivers of this process first, and notify on the session that listens for them. nil: there
// are no longer any.
func (w *Wakes) Through(r *Receivers) { w.receivers.Store(r) }

// Wake wakes the receivers that sleep on channels; "" is skipped. It wakes a receiver of this process if one sleeps on the queue;
// otherwise it notifies, outside of any transaction that writes. If that fails no message is lost: polling finds it.
//
// In a process that handles messages it does not wait: the listener notifies on its own connection or, if that cannot
// be relied on, a goroutine does on one of the pool. So receivers are not blocked while the program's pool is exhausted. Run does not
// return before all of this is done. A process that only sends may end right afterwards, so there Wake returns when it has notified.
func (w *Wakes) Wake(channels ...string) {
	r := w.receivers.Load()
	channels = slices.DeleteFunc(channels, func(channel string) bool { return channel == "" || r != nil && r.Wake(channel) })
	switch {
	case len(channels) == 0:
	case r == nil:
		w.wake(channels)
	case !r.Notify(slices.Clone(channels)): // so that the caller's slice need not be on the heap
		w.Ask(channels)
	}
}

// wake notifies channels and returns when that is done, by whichever goroutine runs it.
func (w *Wakes) wake(channels []string) {
	mine, run := w.gather(channels)
	if run {
		w.run(mine)
	}
	<-mine.done
}

// Ask arranges for channels to be notified, and does not wait.
func (w *Wakes) Ask(channels []string) {
	if mine, run := w.gather(channels); run {
		go w.run(mine)
	}
}

// Flush returns when everything asked for before is done, or when ctx ends.
func (w *Wakes) Flush(ctx context.Context) {
	w.mu.Lock()
	if !w.inFlight {
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

// gather adds channels to the next wake-up; run means that the caller must run it, because none is in flight.
func (w *Wakes) gather(channels []string) (mine *wakeUp, run bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next = &wakeUp{done: make(chan struct{})}
	}
	mine = w.next
	mine.channels = append(mine.channels, channels...)
	if w.inFlight {
		return mine, false
	}
	w.inFlight, w.next = true, nil
	return mine, true
}

// run runs a wake-up and starts the next.
func (w *Wakes) run(this *wakeUp) {
	if len(this.channels) > 0 {
		slices.Sort(this.channels)
		w.notify(slices.Compact(this.channels))
	}
	close(this.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.inFlight = false
		return
	}
	next := w.next
	w.next = nil
	go w.run(next) // its callers wait for that; this wake-up has its result
}
