package trial

// judgeMost looks at a committed message of the endpoint that handles at most once: its handler wrote its effect as it
// began. Losing it, its failure, or what it sent on takes a fault.
func (a *accountant) judgeMost(w where, do deed, b *batch) {
	a.expected[w] = true
	a.result.Messages++
	a.result.AtMostOnce++
	effects, failures, onward := a.effects[w], a.failures[w], where{onwardQueue, w.k}
	a.result.Failed += len(failures)
	if do == sendsOn && a.seen(onward) {
		a.judgeOne(onward, succeed)
	}
	switch {
	case a.left[w] != "":
		a.result.Unaccounted++
		a.blame(w, "it is still in %s", a.left[w])
	case effects > 1:
		a.result.AtMostOnceTwice++
		a.blame(w, "at most once, and its handler was called %d times", effects)
	case len(failures) > 1, len(failures) == 1 && !do.fails() && a.seen(onward):
		a.result.Unaccounted++
		a.blame(w, "it is in the error table %d times, and what it sends on is there: %v", len(failures), a.seen(onward))
	case len(failures) == 1 && failures[0].attempts != 1:
		a.result.WrongAttempts++
		a.blame(w, "at most once, and it failed after %d attempts: %s", failures[0].attempts, failures[0].message)
	case len(failures) == 1 && (do.fails() || a.mayBeLost(b)):
	case effects == 1 && !do.fails() && (do != sendsOn || a.seen(onward)):
	default:
		a.result.AtMostOnceLost++
		if !a.mayBeLost(b) {
			a.result.LostUnexplained++
			a.blame(w, "at most once, and it was lost without a fault: %d effects, %d failures", effects, len(failures))
		}
	}
}

// mayBeLost says whether a fault struck anybody since a batch was sent. Nobody knows who had a message in hand that left no
// trace.
func (a *accountant) mayBeLost(b *batch) bool { return a.trial.faults.struckSince(b.tried) }

// judgeTwice looks at a message that was sent twice with one id. How often it was handled and settled is told by what its
// handler sends on.
func (a *accountant) judgeTwice(w, onward where) {
	a.result.SentTwice++
	if n := a.effects[onward] + len(a.failures[onward]); n > 1 {
		a.result.SettledTwice++
		a.blame(w, "it was sent twice with one id, and handled and settled %d times", n)
	}
}
