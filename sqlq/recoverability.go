package sqlq

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
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
	// Unlimited goes on after the last of Delays, with that delay for each further round, until the message is handled, expires, or fails
	// with an error that no retry can fix. The last delay must be longer than 0. Attempts are counted up to 32,767. A message that kills
	// its process still fails with ErrCrashed, after as many crashes as the policy would have attempts otherwise.
	// Default: off. Cost: a message that can never be handled stays among the delayed ones, where sqlq delayed ls shows it,
	// and moves to the queue and back once in each delay, for ever.
	Unlimited bool
	// Decide chooses for each failed attempt, counted from 1, what happens to the message; the zero Decision leaves it to the other
	// fields. It is not asked about errors that settle the matter: Unrecoverable, ErrUndecodable, ErrUnknownType, GiveBack. If the handler has
	// named a time (RetryAfter), that replaces the Delay of a retry. What Decide chooses is not limited by Immediate and Delays: it alone
	// ends the retries that it asks for, but for crashes, which count as with Unlimited. It is called on the goroutines that handle messages, concurrently, and must be fast. If it panics
	// or returns what is not valid, that is logged and the other fields decide.
	// Default: none. Unit: a func. Cost: its time, and a goroutine, for each failed attempt.
	Decide func(attempt int, err error) Decision
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
	if p.Unlimited && (len(p.Delays) == 0 || p.Delays[len(p.Delays)-1] <= 0) {
		return errors.New("RetryPolicy.Unlimited needs a last delay, longer than 0, to go on with: add one to Delays")
	}
	if p.attempts() > math.MaxInt16 {
		return fmt.Errorf("RetryPolicy has %d attempts: the maximum is %d; lower Immediate, or use fewer Delays", p.attempts(), math.MaxInt16)
	}
	return nil
}

// attempts is how many there are in all, the first included, if the policy is not Unlimited and has no Decide. It has its defaults.
func (p RetryPolicy) attempts() int { return (1 + p.Immediate) * (1 + len(p.Delays)) }

// isEmpty reports whether nothing is set.
func (p RetryPolicy) isEmpty() bool {
	return p.Immediate == 0 && p.Delays == nil && p.Jitter == 0 && !p.Unlimited && p.Decide == nil
}

// verdict is what becomes of a message after an attempt.
type verdict uint8

const (
	complete verdict = iota // remove it, send what its handler sent
	retryNow                // the next attempt follows at once
	retryLater
	wait     // likewise later, and this was no attempt
	fail     // to the error table
	expire   // remove it: its time to live has passed
	giveBack // there is none: its handler was not begun, was interrupted, or gave it back at once, and the message goes back as it came
)

// removes reports whether the message is removed.
func (o outcome) removes() bool { return o.verdict == complete || o.verdict == expire }

// outcome is a verdict with the delay of retryLater and wait.
type outcome struct {
	verdict verdict
	chosen  bool // of giveBack: the handler or the policy wants it
	delay   time.Duration
}

// isFinal reports whether no retry can fix an error.
func isFinal(err error) bool {
	var final *unrecoverable
	return errors.As(err, &final) || errors.Is(err, ErrUndecodable) || errors.Is(err, ErrUnknownType)
}

// decide says what becomes of a message whose attempt, counted from 1, ended with err, and for which Decide has chosen asked. It
// depends on nothing else; random, in [0,1), chooses the point within the jitter. The policy has its defaults.
func (p RetryPolicy) decide(attempt int, err error, asked Decision, random float64) outcome {
	if err == nil {
		return outcome{verdict: complete}
	}
	var named *retryAfter
	switch isNamed := errors.As(err, &named); {
	case isFinal(err):
		return outcome{verdict: fail}
	case givenBackBy(err) != nil:
		return outcome{verdict: wait, delay: givenBackBy(err).after}
	case asked.Outcome == OutcomeFail, asked.Outcome == "" && !p.Unlimited && attempt >= p.attempts():
		return outcome{verdict: fail}
	case asked.Outcome == OutcomeWait:
		return outcome{verdict: wait, delay: asked.Delay}
	case isNamed:
		return outcome{verdict: retryLater, delay: between0And(maxDelay, named.after)}
	case asked.Outcome == OutcomeRetry && asked.Delay == 0 && attempt%mostAtOnce == 0:
		return outcome{verdict: retryLater, delay: time.Second}
	case asked.Outcome == OutcomeRetry && asked.Delay == 0:
		return outcome{verdict: retryNow}
	case asked.Outcome == OutcomeRetry:
		return outcome{verdict: retryLater, delay: asked.Delay}
	}
	// Where attempts are counted no further, each is the last of its round: the one before could not be told from it.
	round, step := (attempt-1)/(1+p.Immediate), (attempt-1)%(1+p.Immediate)
	if step < p.Immediate && attempt < math.MaxInt16 {
		return outcome{verdict: retryNow}
	}
	delay := p.Delays[min(round, len(p.Delays)-1)]
	return outcome{verdict: retryLater, delay: delay + time.Duration(float64(delay)*p.Jitter*(2*random-1))}
}

func between0And(most, d time.Duration) time.Duration { return min(max(d, 0), most) }

// decide brings a delivery whose attempt has ended to its outcome, as the endpoint's policy says.
func (h *handlers) decide(d *delivery) {
	if d.err == nil {
		d.outcome = outcome{verdict: complete}
		return
	}
	policy := h.endpoint.Retry
	if h.endpoint.AtMostOnce && givenBackBy(d.err) != nil {
		d.err = Unrecoverable(fmt.Errorf("%w (its endpoint is AtMostOnce: the message has left its queue, and its handler is not called again; replay it if it may be)", d.err))
	}
	asked, fault := policy.ask(d.made(), d.err)
	if fault != nil {
		h.client.config.messages.say(d.ctx, slog.LevelError, "sqlq: RetryPolicy.Decide has made no valid decision; the other fields of the policy decide", h.endpoint.Name, d.stored.messageType, fault, "message", d.stored.id, "attempt", d.made())
	}
	again := d.outcome.verdict == wait // the server has refused to store that
	if d.outcome = policy.decide(d.made(), d.err, asked, h.client.config.rand()); d.outcome.verdict == wait {
		h.takeBack(d, again)
	}
}

// hasCrashedTooOften reports whether as many processes have died of a message as its policy has attempts. Where the policy does
// not count attempts only those count in which a process died.
func (p RetryPolicy) hasCrashedTooOften(d *delivery) bool {
	if !p.Unlimited && p.Decide == nil {
		return d.crashes && d.made() >= p.attempts()
	}
	times, _ := strconv.Atoi(d.Headers[headerCrashes])
	return d.crashes && times >= p.attempts()
}
