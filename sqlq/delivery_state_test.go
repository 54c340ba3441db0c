package sqlq

import (
	"log/slog"
	"math/rand/v2"
	"testing"
)

// The table of a delivery's states, driven at random: what it allows happens and is counted, what it does not is refused and
// changes nothing.
func TestDeliveryStates(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	h := &hand{endpoint: &Endpoint{}, log: slog.New(slog.DiscardHandler), turn: make(chan struct{}, 1)}
	seen := of(fetched)
	for range 2000 {
		b := &batch{done: make(chan struct{})}
		for range 1 + random.IntN(5) {
			b.all = append(b.all, &delivery{batch: b, inTx: random.IntN(3) == 0})
		}
		for _, d := range b.all {
			if !d.inTx {
				b.open++
			}
		}
		if b.open == 0 {
			close(b.done)
		}
		for range 200 {
			d, to := b.all[random.IntN(len(b.all))], deliveryState(random.IntN(deliveryStates+1))
			from, before := d.state, h.states
			if from == fetched && !d.inTx && to != waiting {
				to = waiting // the only way in for what a batch counts
			}
			if from.next(to) != nil {
				if panics := refused(func() { h.move(d, to) }); !panics || d.state != from || h.states != before {
					t.Fatalf("from %s to %s: refused %v, and it is %s", from, stateOf(to), panics, d.state)
				}
				continue
			}
			if !h.move(d, to) || d.state != to {
				t.Fatalf("from %s to %s: refused", from, to)
			}
			seen |= of(to)
			var want stateCounts
			open, over := 0, 0
			for _, d := range b.all {
				if !isOver.has(d.state) && d.state != fetched {
					want[d.state]++
				}
				if !d.inTx && (d.state == fetched || runs.has(d.state)) {
					open++
				}
				if isOver.has(d.state) {
					over++
				}
			}
			if h.states != want || h.states.inHand() != len(b.all)-over-count(b.all, fetched) || b.open != open {
				t.Fatalf("after %s to %s it counts %v and %d open, want %v and %d", from, to, &h.states, b.open, &want, open)
			}
			if closed := isClosed(b.done); closed != (open == 0) {
				t.Fatalf("%d are open, the batch is done: %v", open, closed)
			}
		}
		h.states = stateCounts{} // of those that did not get to their end
	}
	for s := range deliveryState(deliveryStates) {
		if !seen.has(s) {
			t.Errorf("no delivery ever was %s", s)
		}
		if isOver.has(s) != (transitions[s] == 0) {
			t.Errorf("%s is final: %v, and may be followed by %b", s, isOver.has(s), transitions[s])
		}
		if !isOver.has(s) && !reaches(s, isOver) {
			t.Errorf("a delivery that is %s has no way to its end", s)
		}
	}
}

// A message that may have killed a process keeps others from running until it is settled, given up or kept.
func TestEndOfADeliveryEndsItsTurn(t *testing.T) {
	t.Parallel()
	for s := range deliveryState(deliveryStates) {
		turn := make(chan struct{}, 1)
		h := &hand{endpoint: &Endpoint{}, turn: turn}
		turn <- struct{}{}
		b := &batch{open: 1, done: make(chan struct{})}
		for from := range deliveryState(deliveryStates) {
			if transitions[from].has(s) {
				d := &delivery{batch: b, state: from, apart: true}
				h.move(d, s)
				if free := len(turn) == 0; free != endsTurn.has(s) || d.apart == free {
					t.Errorf("from %s to %s: its turn has ended: %v", from, s, free)
				}
				break
			}
		}
	}
}

// A process that goes on after a step that is refused says so once.
func TestIllegalStepIsRefused(t *testing.T) {
	t.Parallel()
	var s deliveryState = settled
	if err := s.next(running); err == nil || err.Error() != "a delivery that is settled cannot become running" {
		t.Error(err)
	}
}

func refused(step func()) (panics bool) {
	defer func() { panics = recover() != nil }()
	step()
	return false
}

func count(ds []*delivery, s deliveryState) (n int) {
	for _, d := range ds {
		if d.state == s {
			n++
		}
	}
	return n
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// reaches reports whether a path leads from a state to one of a set.
func reaches(from deliveryState, to states) bool {
	set := of(from)
	for range deliveryStates {
		for s := range deliveryState(deliveryStates) {
			if set.has(s) {
				set |= transitions[s]
			}
		}
	}
	return set&to != 0
}
