package sqlq

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Pausing. An operator pauses a queue by a mark in its row of the registry, and notifies the registry's channel. No
// receiver fetches from a paused queue, sleeps on it or polls it; senders, the mover of delayed messages and the recovery
// of leases go on, and what is in hand is finished. Fetching costs nothing for it: the mark is read at the start, at each
// notification, and with each heartbeat, which is all that a process has without LISTEN.

// pauses puts the readings of the registry in order, which are made on several connections: of two the one that began
// later counts. So nothing that is older than a notification overrides what was read after it.
type pauses struct {
	mu            ranked[ofPauses]
	begun, learnt int
}

// begin returns the number of a reading that is about to begin.
func (p *pauses) begin() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun++
	return p.begun
}

// readPaused learns which queues are paused.
func (r *runner) readPaused(ctx context.Context, c *session.Conn) error {
	var paused []store.Paused
	reading, b := r.pauses.begin(), &pgx.Batch{}
	queues := namesOf(r.instances.now())
	r.client.store.Queues.Paused(b, queues, &paused)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("read which queues are paused: %w", err)
	}
	r.learnPaused(reading, queues, paused)
	return nil
}

// learnPaused pauses and resumes the instances of queues as a reading says.
func (r *runner) learnPaused(reading int, queues []string, paused []store.Paused) {
	r.pauses.mu.Lock()
	defer r.pauses.mu.Unlock()
	if reading < r.pauses.learnt {
		return
	}
	r.pauses.learnt = reading
	marks := map[string]*store.Paused{}
	for i := range paused {
		marks[paused[i].Queue] = &paused[i]
	}
	for _, in := range r.instances.now() {
		if !slices.Contains(queues, in.endpoint.Name) {
			continue // it has come since
		}
		if mark := marks[in.endpoint.Name]; mark != nil {
			in.pause(mark)
		} else {
			in.resume()
		}
	}
}

// pause ends the instance's looking for messages.
func (in *instance) pause(mark *store.Paused) {
	if in.lookout.setPaused(true) {
		return
	}
	in.bell.Interrupt()
	in.client.log.Info("sqlq: the queue is paused; its messages wait until it is resumed", "endpoint", in.endpoint.Name, "since", mark.Since, "by", mark.By)
}

// resume has the instance look for messages again.
func (in *instance) resume() {
	if in.lookout.setPaused(false) {
		in.client.log.Info("sqlq: the queue is resumed", "endpoint", in.endpoint.Name)
		in.wake()
	}
}

// setPaused pauses or resumes, and reports whether it was paused before.
func (l *lookout) setPaused(paused bool) (was bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, l.paused = l.paused, paused; paused && !was {
		nudge(l.short) // no fetch will come back to end a look
	}
	return was
}

func (l *lookout) isPaused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paused
}

// missing has the instance wait before it fetches again, because its queue is not there.
func (in *instance) missing(err error) {
	if in.lookout.notYet(time.Now().Add(time.Second)) {
		in.client.log.Error("sqlq: cannot receive; trying every second", "endpoint", in.endpoint.Name, "err", err)
	}
	in.group.life.after(time.Second+time.Millisecond, in.run.dispatcher.kick)
}

// present notes that the queue is there.
func (in *instance) present() {
	if !in.lookout.notYet(time.Time{}) {
		in.run.listener.Refresh()
	}
}

// notYet has nothing fetched before a time, zero for at once, and reports whether nothing forbade it until now.
func (l *lookout) notYet(before time.Time) (free bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	free, l.notBefore = l.notBefore.IsZero(), before
	return free
}
