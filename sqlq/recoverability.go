package sqlq

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// RetryPolicy says how often and when a failed message is retried before it goes to the error table. The zero value
// is the default: each round is one attempt and 2 immediate retries, and four more rounds follow the first,
// delayed by 2, 4, 8 and 16 s: 15 attempts in about half a minute.
type RetryPolicy struct {
	// Immediate is the number of immediate retries in each round.
	// Default: 2. Unit: retries; −1: none. Cost: an attempt each, during which the message occupies a slot.
	Immediate int
	// Delays are the pauses before the rounds after the first one. Empty and not nil: none.
	// Default: 2, 4, 8 and 16 s. Unit: durations, 0 to 100 years. Cost: more and longer: a message that cannot be handled
	// reaches the error table later. Each one moves it to the delayed table and back.
	Delays []time.Duration
	// Jitter varies each delay randomly by up to this fraction of it, so that messages that failed together do not come back together.
	// Default: 0.2. Unit: a fraction, up to 1; −1: none. Cost: none.
	Jitter float64
}

var defaultDelays = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second}

func (p RetryPolicy) withDefaults() RetryPolicy {
	switch {
	case p.Immediate == 0:
		p.Immediate = 2
	case p.Immediate < 0:
		p.Immediate = 0
	}
	if p.Delays == nil {
		p.Delays = defaultDelays
	}
	switch {
	case p.Jitter == 0:
		p.Jitter = 0.2
	case p.Jitter < 0:
		p.Jitter = 0
	}
	return p
}

func (p RetryPolicy) validate() error {
	if p.Jitter > 1 || math.IsNaN(p.Jitter) {
		return fmt.Errorf("RetryPolicy.Jitter is %v: it must be a fraction of the delay, at most 1", p.Jitter)
	}
	for _, d := range p.Delays {
		if d < 0 || d > maxDelay {
			return fmt.Errorf("RetryPolicy.Delays has %v: a delay must be from 0 to 100 years", d)
		}
	}
	if p.attempts() > math.MaxInt16 {
		return fmt.Errorf("RetryPolicy has %d attempts: the maximum is %d; lower Immediate, or use fewer Delays", p.attempts(), math.MaxInt16)
	}
	return nil
}

// attempts is how many there are in all, the first included. The policy has its defaults.
func (p RetryPolicy) attempts() int { return (1 + p.Immediate) * (1 + len(p.Delays)) }

// verdict is what becomes of a message after an attempt.
type verdict int

const (
	complete verdict = iota // remove it, send what its handler sent
	retryNow                // the next attempt follows at once
	retryLater
	wait     // likewise later, and this was no attempt
	fail     // to the error table
	expire   // remove it: its time to live has passed
	giveBack // there is none: its handler was not begun, or was interrupted, and the message goes back as it came
)

// removes reports whether the message is removed.
func (o outcome) removes() bool { return o.verdict == complete || o.verdict == expire }

// outcome is a verdict with the delay of retryLater and wait.
type outcome struct {
	verdict verdict
	delay   time.Duration
}

// decide says what becomes of a message whose attempt, counted from 1, ended with err. It depends on nothing else;
// random, in [0,1), chooses the point within the jitter. The policy has its defaults.
func (p RetryPolicy) decide(attempt int, err error, random float64) outcome {
	if err == nil {
		return outcome{verdict: complete}
	}
	var final *unrecoverable
	if errors.As(err, &final) || errors.Is(err, ErrUndecodable) || errors.Is(err, ErrUnknownType) || attempt >= p.attempts() {
		return outcome{verdict: fail}
	}
	var named *retryAfter
	if errors.As(err, &named) {
		return outcome{verdict: retryLater, delay: min(max(named.after, 0), maxDelay)}
	}
	round, step := (attempt-1)/(1+p.Immediate), (attempt-1)%(1+p.Immediate)
	if step < p.Immediate {
		return outcome{verdict: retryNow}
	}
	delay := p.Delays[round]
	return outcome{verdict: retryLater, delay: delay + time.Duration(float64(delay)*p.Jitter*(2*random-1))}
}
