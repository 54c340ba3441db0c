package trial

import "fmt"

// Result is what a trial found. Messages are counted as they lie in queues: an event once for each subscriber, and what a
// handler sent on by itself.
type Result struct {
	Scenario     string  `json:"scenario"`
	Seed         uint64  `json:"seed"`
	Duration     float64 `json:"duration_seconds"` // of the faults
	TotalSeconds float64 `json:"total_seconds"`    // with draining and accounting
	Server       string  `json:"server"`
	Skew         float64 `json:"skew_seconds"` // of the server's clock against the processes'

	Messages        int `json:"messages"`         // committed
	Lost            int `json:"lost"`             // committed and nowhere
	DoubleEffects   int `json:"double_effects"`   // of HandleTx
	Unaccounted     int `json:"unaccounted"`      // in more than one place, in the wrong one, or never sent
	WrongAttempts   int `json:"wrong_attempts"`   // failed after another number of attempts than the policy has
	Repeated        int `json:"repeated"`         // effects of Handle beyond the first of a message
	Unexplained     int `json:"unexplained"`      // of these, with no fault that explains it
	Failed          int `json:"failed"`           // in the error table at the end, as they ought to be
	Replayed        int `json:"replayed"`         // failed of a fault, were replayed, and then succeeded
	UnknownOutcomes int `json:"unknown_outcomes"` // sends that were not acknowledged
	UnknownStored   int `json:"unknown_stored"`   // of these, committed

	Killers           int `json:"killers"`        // messages that end their process, one way or another
	KillersFailed     int `json:"killers_failed"` // of these, in the error table
	Neighbours        int `json:"neighbours"`     // messages sent together with poison
	NeighboursHandled int `json:"neighbours_handled"`

	AtMostOnce      int `json:"at_most_once"`             // messages of an endpoint that handles at most once
	AtMostOnceLost  int `json:"at_most_once_lost"`        // of these, not handled, or their failure or what they sent is nowhere
	AtMostOnceTwice int `json:"at_most_once_twice"`       // of these, handled more than once
	LostUnexplained int `json:"at_most_once_unexplained"` // of those lost, with no fault that explains it
	SentTwice       int `json:"sent_twice"`               // messages, each sent twice with its id, to an endpoint that deduplicates
	SettledTwice    int `json:"settled_twice"`            // of these, handled more than once and settled

	SlowestStop float64        `json:"slowest_stop_seconds"` // from SIGTERM to the end of a process
	Faults      map[string]int `json:"faults"`
	Skipped     []string       `json:"skipped,omitempty"`
	Problems    []string       `json:"problems,omitempty"`
	Timeline    string         `json:"-"` // of one offending message
}

// Wrong says what is not as it ought to be; nil: all is well.
func (r *Result) Wrong() (wrong []string) {
	zero := func(n int, what string) {
		if n != 0 {
			wrong = append(wrong, fmt.Sprintf("%d %s", n, what))
		}
	}
	zero(r.Lost, "lost")
	zero(r.DoubleEffects, "double effects of HandleTx")
	zero(r.Unaccounted, "unaccounted for")
	zero(r.WrongAttempts, "failed after a wrong number of attempts")
	zero(r.Unexplained, "repeated without a fault that explains it")
	zero(r.Killers-r.KillersFailed, "killers not in the error table")
	zero(r.Neighbours-r.NeighboursHandled, "neighbours of poison not handled")
	zero(r.AtMostOnceTwice, "handled twice by an endpoint that handles at most once")
	zero(r.LostUnexplained, "lost by an endpoint that handles at most once, without a fault that explains it")
	zero(r.SettledTwice, "settled twice by an endpoint that deduplicates")
	if r.Messages == 0 {
		wrong = append(wrong, "no messages")
	}
	return append(wrong, r.Problems...)
}
