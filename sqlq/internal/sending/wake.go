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

// Wakes wakes sleeping receivers of committed messages. Wake-ups that happen at the same time share a NOTIFY: each takes a lock
// that the whole server has one of. While one is under way, further ones gather.
type Wakes struct {
	notify    func(channels []string)
	receivers atomic.Pointer[Receivers] // nil: this process only sends

	mu       sync.Mutex
	next     *wakeUp // that gathers; nil: nobody has asked for one
	underWay bool
}

// Receivers are those of this process, as the session knows them that listens for them.
type Receivers struct {
	Wake   func(channel string) bool    // wakes one that sleeps on a channel, if there is one and it would fetch
	Notify func(channels []string) bool // has channels notified soon; false where that cannot be relied on
}

type wakeUp struct {
	channels []string
	done     chan struct{}
}

// NewWakes returns wake-ups that go through the pool.
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

// Through has wake-ups go to the receivers of this process first, and through the session that listens for them. nil: there
// are none any more.
func (w *Wakes) Through(r *Receivers) { w.receivers.Store(r) }

// Wake wakes those who sleep on channels; "" is none. A receiver of this process that sleeps on the queue is enough; for others
// it notifies, apart from every transaction that writes. A failure loses no message: polling finds it.
//
// In a process that handles messages it does not wait: the listener notifies, on its own connection, or, where that cannot
// be relied on, a goroutine does on the pool's. So no receiver stands still when the program has its pool busy. Run does not
// return before all is done. A process that only sends may end right afterwards; there it returns when it has notified.
func (w *Wakes) Wake(channels ...string) {
	r := w.receivers.Load()
	channels = slices.DeleteFunc(channels, func(channel string) bool { return channel == "" || r != nil && r.Wake(channel) })
	switch {
	case len(channels) == 0:
	case r == nil:
		w.wake(channels)
	case !r.Notify(slices.Clone(channels)): // so that the callers' need not be on the heap
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

// Ask has channels notified, and does not wait.
func (w *Wakes) Ask(channels []string) {
	if mine, run := w.gather(channels); run {
		go w.run(mine)
	}
}

// Flush returns when what was asked for before has been done, or when ctx ends.
func (w *Wakes) Flush(ctx context.Context) {
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
func (w *Wakes) gather(channels []string) (mine *wakeUp, run bool) {
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
func (w *Wakes) run(this *wakeUp) {
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
