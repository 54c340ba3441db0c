package sqlq

import (
	"fmt"
	"strings"
)

// deliveryState says where a delivery stands between its fetch and its end. A delivery is in one state at a time and changes it
// only by hand.move, which holds to the table below.
//
//	fetched ─► waiting or lined ─► running ─► decided ─► settled      with its batch
//	                                 │  ▲       │  ▲
//	                                 ▼  │       ▼  │
//	                                leasing   settling ─► settled     by itself
//
// What is not handled, or not stored, after all is freed. While a lease is being committed (leasing) the handler may end
// (leasingDecided). What the server refuses is kept and tried again. The drain takes a leased message away from a handler that
// still runs (recalled, then returning), and a lost transaction does so at once (lost).
type deliveryState uint8

const (
	fetched        deliveryState = iota // made of what a fetch brought, not taken in hand yet
	waiting                             // for a slot
	lined                               // HandleTx: for its turn on the connection
	running                             // a slot has it, or the receiver on whose connection it runs
	leasing                             // likewise, and its lease is being committed
	leasingDecided                      // decided, and its lease is being committed
	decided                             // its end is known and is to be stored
	settling                            // its end is being stored, by itself and not with its batch
	kept                                // the server refuses its end, which is to be stored later
	recalled                            // it is to be given back although its handler runs
	returning                           // likewise, and that is being stored
	lost                                // its handler runs, but others have its row by now
	settled                             // final: its end is stored
	freed                               // final: its row is left to whoever fetches it, or another's

	deliveryStates = iota
)

var stateNames = [deliveryStates]string{"fetched", "waiting", "lined", "running", "leasing", "leasing, decided", "decided", "settling", "kept",
	"recalled", "returning", "lost", "settled", "freed"}

// String implements fmt.Stringer.
func (s deliveryState) String() string { return stateNames[s] }

// states is a set of them.
type states uint16

func of(all ...deliveryState) (set states) {
	for _, s := range all {
		set |= 1 << s
	}
	return set
}

func (set states) has(s deliveryState) bool { return set>>s&1 == 1 }

// transitions are the states that may follow each.
var transitions = [deliveryStates]states{
	// A fetch brought it: it is taken in hand, or left alone after all. What cannot be made ready is given back.
	fetched: of(waiting, lined, decided, freed),
	// It begins, or is not begun: a held one is freed by its batch's commit, others are given back.
	waiting: of(running, decided, freed),
	lined:   of(running, decided, freed),
	// The handler ends; or its work is undone, with its transaction or alone; or its batch is settled without it; or the drain
	// does not wait for it.
	running: of(decided, leasing, recalled, freed),
	// The lease stands, or the transaction was lost.
	leasing:        of(leasingDecided, running, lost),
	leasingDecided: of(decided, freed),
	// Its end is stored with its batch or its handler's transaction, or by itself; or is undone with its transaction.
	decided:  of(settling, settled, freed),
	settling: of(settled, decided, kept, freed),
	kept:     of(decided),
	// The handler ends before its message has been given back, or after.
	recalled:  of(returning, decided),
	returning: of(recalled, settling, lost),
	lost:      of(freed),
}

var (
	// isOver are the final states.
	isOver = of(settled, freed)
	// runs are the states in which a handler has the message or may get it: a held batch waits for the end of those.
	runs = of(waiting, running, leasing, recalled, returning, lost)
	// isRunning are those in which a handler has it and the process has its row.
	isRunning = of(running, leasing, recalled, returning)
	// isUnbegun are those in which a message of a held batch is free with its transaction and nobody has handled it.
	isUnbegun = of(fetched, waiting, lined, freed)
	// endsTurn are those in which a message that may have killed a process keeps no other such message from running.
	endsTurn = of(settled, freed, kept, lost)
)

// next refuses a step that the table has not.
func (s deliveryState) next(to deliveryState) error {
	if to < deliveryStates && transitions[s].has(to) {
		return nil
	}
	return fmt.Errorf("a delivery that is %s cannot become %s", s, stateOf(to))
}

func stateOf(s deliveryState) string {
	if s < deliveryStates {
		return s.String()
	}
	return fmt.Sprint("state ", uint8(s))
}

// stateCounts counts the deliveries of an instance by state. Those that are fetched are not in hand yet, and final ones no longer.
type stateCounts [deliveryStates]int

// inHand is the number of deliveries that are not at their end.
func (c *stateCounts) inHand() (n int) {
	for s := waiting; s < settled; s++ {
		n += c[s]
	}
	return n
}

// String names what there is.
func (c *stateCounts) String() string {
	var all []string
	for s, n := range c {
		if n != 0 {
			all = append(all, fmt.Sprint(n, " ", deliveryState(s)))
		}
	}
	return strings.Join(all, ", ")
}
