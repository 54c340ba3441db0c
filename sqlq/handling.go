package sqlq

import (
	"iter"
	"maps"
	"slices"
)

// handling is a handler of an instance, with its breaker.
type handling struct {
	*Handler
	breaker
}

// maxOthers limits how many message types without a handler of their own have a breaker each.
const maxOthers = 1_000

// handlings find the handler of an instance for a message type. For Endpoint.Otherwise each message type has a breaker of its own too,
// made when its first message comes: failures of one type say nothing about the others.
//
// Slots, receivers and whoever begins a look call in. Its fields are unchanged once the instance is made, but for others, which mu
// guards.
type handlings struct {
	byType    map[string]*handling
	otherwise *Handler  // nil: there is none
	overflow  *handling // for all types beyond maxOthers; its breaker never opens
	policy    BreakerPolicy

	mu     ranked[ofPart]
	others map[string]*handling // for otherwise; at most maxOthers
}

// newHandlings returns the handlings of an endpoint that has been validated.
func newHandlings(e *Endpoint) *handlings {
	hs := &handlings{byType: map[string]*handling{}, policy: e.Breaker, others: map[string]*handling{}}
	for i := range e.Handlers {
		hs.byType[e.Handlers[i].messageType] = &handling{Handler: &e.Handlers[i], breaker: newBreaker(hs.policy)}
	}
	if e.Otherwise.run != nil {
		hs.otherwise = &e.Otherwise
		hs.overflow = &handling{Handler: hs.otherwise, breaker: newBreaker(BreakerPolicy{Off: true})}
	}
	return hs
}

// of returns the handling for a message type; nil if there is none.
func (hs *handlings) of(messageType string) *handling {
	if h := hs.byType[messageType]; h != nil || hs.otherwise == nil {
		return h
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h := hs.others[messageType]
	switch {
	case h != nil:
		return h
	case len(hs.others) >= maxOthers:
		return hs.overflow
	}
	own := *hs.otherwise
	own.messageType = messageType
	h = &handling{Handler: &own, breaker: newBreaker(hs.policy)}
	hs.others[messageType] = h
	return h
}

// all yields each handling whose breaker can open. No lock is held meanwhile.
func (hs *handlings) all() iter.Seq[*handling] {
	return func(yield func(*handling) bool) {
		for _, h := range hs.byType {
			if !yield(h) {
				return
			}
		}
		hs.mu.Lock()
		others := slices.Collect(maps.Values(hs.others))
		hs.mu.Unlock()
		for _, h := range others {
			if !yield(h) {
				return
			}
		}
	}
}
