package wakeup

import "context"

// Bell is how an endpoint of this process is woken. Its fields are what the listening session must know of the endpoint; they are
// set before it is given to a Listener. Rung may be called with the Listener's mutex held: it must not call its
// methods.
type Bell struct {
	Queue string // that the endpoint receives from

	Rung         func(why Reason)              // notes that there may be something to fetch
	Look         func(ctx context.Context) int // fetches until the end of the queue is in sight; how many fetches brought something
	HasRoom      func() bool                   // reports whether a message that arrives now would be handled at once
	IsPaused     func() bool                   // reports whether an operator has paused the queue
	IsSuspicious func() bool                   // reports whether a process has died that may hold messages still: nobody notifies of those

	listener *Listener
	woken    chan struct{} // filled when somebody rings
}

// Reason is why a bell is rung.
type Reason int

const (
	Called   Reason = iota // something has changed, or another process calls
	Notified               // a sender has committed something
	Found                  // polling has found messages
	Sent                   // a sender of this process has committed something
)

// NewBell returns a bell with these fields.
func NewBell(b Bell) *Bell {
	b.woken = make(chan struct{}, 1)
	return &b
}

// Ring has the endpoint look for messages.
func (b *Bell) Ring(why Reason) {
	b.Rung(why)
	b.Interrupt()
}

// Interrupt ends the wait of Attend, if it waits, or keeps the next one from beginning.
func (b *Bell) Interrupt() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
}

// Overflow says that there may be more in the queue than the endpoint can do: it leaves the watch to others, and calls them.
func (b *Bell) Overflow() { b.listener.overflow(b) }

// CallOthers wakes the endpoint's receivers in other processes, on whatever connection there is: there are messages that this
// one leaves to them.
func (b *Bell) CallOthers() { b.listener.wakeOthers(b) }

// Rests returns how the endpoint sleeps.
func (b *Bell) Rests() Rest { return b.listener.rests(b) }

// IsRefused reports whether the endpoint would sleep and cannot, because others have the sleeper's lock.
func (b *Bell) IsRefused() bool { return b.listener.isRefused(b) }
