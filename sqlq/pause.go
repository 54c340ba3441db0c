package sqlq

import (
	"context"
	"fmt"

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
	r.client.store.Queues.Paused(b, r.endpoints(), &paused)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("read which queues are paused: %w", err)
	}
	r.learnPaused(reading, paused)
	return nil
}

// learnPaused pauses and resumes the instances as a reading says.
func (r *runner) learnPaused(reading int, paused []store.Paused) {
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
	for _, in := range r.instances {
		if mark := marks[in.endpoint.Name]; mark != nil {
			in.pause(mark)
		} else {
			in.resume()
		}
	}
}

// pause ends the instance's looking for messages.
func (in *instance) pause(mark *store.Paused) {
	in.mu.Lock()
	was := in.paused
	in.paused = true
	if !was {
		nudge(in.short) // no fetch will come back to end a look
	}
	in.mu.Unlock()
	if was {
		return
	}
	in.bell.Interrupt()
	in.client.log.Info("sqlq: the queue is paused; its messages wait until it is resumed", "endpoint", in.endpoint.Name, "since", mark.Since, "by", mark.By)
}

// resume has the instance look for messages again.
func (in *instance) resume() {
	in.mu.Lock()
	was := in.paused
	in.paused = false
	in.mu.Unlock()
	if was {
		in.client.log.Info("sqlq: the queue is resumed", "endpoint", in.endpoint.Name)
		in.wake()
	}
}

func (in *instance) isPaused() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.paused
}
