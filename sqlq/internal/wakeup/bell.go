package wakeup

import "context"

// Bell wakes an endpoint of this process. Its fields are what the listening session needs to know about the endpoint; set them
// before giving the Bell to a Listener. Rung and IsDraining may be called with the Listener's mutex held, so they must not call the
// Listener's methods.
type Bell struct {
	Queue string // from which the endpoint receives

	Rung         func(why Reason)              // notes that there may be something to fetch
	Look         func(ctx context.Context) int // fetches until the end of the queue is in sight, and returns how many fetches brought something
	HasRoom      func() bool                   // reports whether a message that arrives now would be handled at once
	IsPaused     func() bool                   // reports whether an operator has paused the queue
	IsDraining   func() bool                   // reports whether the endpoint fetches no more, because it is about to end
	IsSuspicious func() bool                   // reports whether a dead process may still hold messages; their release sends no notification

	listener *Listener
	woken    chan struct{} // filled when the bell is rung
}

// Reason says why a bell is rung.
type Reason int

const (
	Called   Reason = iota // something has changed, or another process has called
	Notified               // a sender has committed something
	Found                  // polling has found messages
	Sent                   // a sender of this process has committed something
)

// NewBell returns a bell with these fields.
func NewBell(b Bell) *Bell {
	b.woken = make(chan struct{}, 1)
	return &b
}

// Ring makes the endpoint look for messages.
func (b *Bell) Ring(why Reason) {
	b.Rung(why)
	b.Interrupt()
}

// Interrupt ends the current wait of Attend, or else the next one as soon as it begins.
func (b *Bell) Interrupt() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

// Overflow notes that the queue may contain more than the endpoint can handle: it leaves the watch to others, and calls them.
func (b *Bell) Overflow() { b.listener.overflow(b) }

// CallOthers wakes the endpoint's receivers in other processes, on whatever connection is available, for messages that this
// process leaves to them.
func (b *Bell) CallOthers() { b.listener.wakeOthers(b) }

// Rests returns how the endpoint sleeps.
func (b *Bell) Rests() Rest { return b.listener.rests(b) }

// IsRefused reports whether the endpoint wants to sleep and cannot, because others have the sleeper's lock.
func (b *Bell) IsRefused() bool { return b.listener.isRefused(b) }
