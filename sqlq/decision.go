package sqlq

import (
	"errors"
	"fmt"
	"time"
)

// Decision is what RetryPolicy.Decide chooses for a message whose attempt has failed. The zero Decision chooses nothing: the other
// fields of the policy decide.
type Decision struct {
	// Outcome is OutcomeRetry, OutcomeFail (to the error table), or OutcomeWait: it comes back after Delay and the attempt does
	// not count, as with GiveBack. All others are not valid.
	Outcome Outcome
	// Delay is until the message comes back, for OutcomeRetry and OutcomeWait; the policy's Jitter does not vary it. With 0 it is retried
	// at once where it is, but after every hundredth attempt a second later.
	// Unit: duration, 0 to 100 years.
	Delay time.Duration
}

// mostAtOnce is how many attempts may follow one another at once because Decide says so.
const mostAtOnce = 100

func (d Decision) validate() error {
	switch {
	case d.Outcome != "" && d.Outcome != OutcomeRetry && d.Outcome != OutcomeFail && d.Outcome != OutcomeWait:
		return fmt.Errorf("it chose the outcome %.100q: choose retry, fail or wait", string(d.Outcome))
	case d.Delay < 0 || d.Delay > maxDelay:
		return fmt.Errorf("it chose a delay of %v: a delay must be from 0 to 100 years", d.Delay)
	}
	return nil
}

// ask returns what Decide chooses for an attempt, and why that is not valid. It has a goroutine of its own, because it may end that.
func (p RetryPolicy) ask(attempt int, err error) (chosen Decision, fault error) {
	if p.Decide == nil || err == nil || isFinal(err) || givenBackBy(err) != nil {
		return Decision{}, nil
	}
	fault = errors.New("it ended its goroutine instead of returning")
	done := make(chan struct{})
	go func() {
		defer close(done)
		fault = call(func() error {
			chosen = p.Decide(attempt, err)
			return nil
		})
	}()
	<-done
	if fault == nil {
		fault = chosen.validate()
	}
	if fault != nil {
		return Decision{}, fault
	}
	return chosen, nil
}
