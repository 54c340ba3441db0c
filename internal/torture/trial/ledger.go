package trial

import (
	"sync"
	"time"
)

// ledger is what senders said: what they were about to send, and what was acknowledged.
type ledger struct {
	mu      sync.Mutex
	batches map[key]*batch // by first key
	sent    int
}

func newLedger() *ledger { return &ledger{batches: map[key]*batch{}} }

func (g *ledger) take(sender string, l line) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	switch {
	case l.Try != nil:
		l.Try.sender, l.Try.tried = sender, now
		g.batches[l.Try.First] = l.Try
	case l.Ack != 0:
		b := g.batches[l.Ack]
		b.acked, b.ended = true, now
		g.sent += b.N
	case l.Err != 0:
		b := g.batches[l.Err]
		b.ended, b.why = now, l.Why
	}
}

// acknowledged counts the messages whose commit is known.
func (g *ledger) acknowledged() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sent
}
