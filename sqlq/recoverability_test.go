package sqlq

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	var (
		fault  = errors.New("fault")
		policy = RetryPolicy{Immediate: 2, Delays: []time.Duration{10 * time.Second, 20 * time.Second}, Jitter: 0.5}
		none   = RetryPolicy{Immediate: -1, Delays: []time.Duration{}}.withDefaults()
	)
	cases := []struct {
		name    string
		policy  RetryPolicy
		attempt int
		err     error
		random  float64
		want    outcome
	}{
		{"success", policy, 1, nil, 0.5, outcome{verdict: complete}},
		{"success at the last attempt", policy, 9, nil, 0.5, outcome{verdict: complete}},
		{"first attempt", policy, 1, fault, 0.5, outcome{verdict: retryNow}},
		{"second attempt", policy, 2, fault, 0.5, outcome{verdict: retryNow}},
		{"end of the first round", policy, 3, fault, 0.5, outcome{verdict: retryLater, delay: 10 * time.Second}},
		{"begin of the second round", policy, 4, fault, 0.5, outcome{verdict: retryNow}},
		{"end of the second round", policy, 6, fault, 0.5, outcome{verdict: retryLater, delay: 20 * time.Second}},
		{"least jitter", policy, 3, fault, 0, outcome{verdict: retryLater, delay: 5 * time.Second}},
		{"most jitter", policy, 6, fault, 1, outcome{verdict: retryLater, delay: 30 * time.Second}},
		{"last attempt", policy, 9, fault, 0.5, outcome{verdict: fail}},
		{"beyond the last attempt", policy, 100, fault, 0.5, outcome{verdict: fail}},
		{"no retries", none, 1, fault, 0.5, outcome{verdict: fail}},
		{"unrecoverable", policy, 1, Unrecoverable(fault), 0.5, outcome{verdict: fail}},
		{"unrecoverable, wrapped", policy, 1, fmt.Errorf("handle: %w", Unrecoverable(fault)), 0.5, outcome{verdict: fail}},
		{"undecodable", policy, 1, fmt.Errorf("%w: no JSON", ErrUndecodable), 0.5, outcome{verdict: fail}},
		{"unknown type", policy, 1, ErrUnknownType, 0.5, outcome{verdict: fail}},
		{"named time", policy, 1, RetryAfter(time.Minute, fault), 0.5, outcome{verdict: retryLater, delay: time.Minute}},
		{"named time, wrapped", policy, 5, fmt.Errorf("handle: %w", RetryAfter(time.Minute, fault)), 0.9, outcome{verdict: retryLater, delay: time.Minute}},
		{"named time in the past", policy, 1, RetryAfter(-time.Minute, fault), 0.5, outcome{verdict: retryLater, delay: 0}},
		{"named time at the last attempt", policy, 9, RetryAfter(time.Minute, fault), 0.5, outcome{verdict: fail}},
		{"panic", policy, 1, &panicked{value: "oh"}, 0.5, outcome{verdict: retryNow}},
		{"default policy, last delay", RetryPolicy{}.withDefaults(), 12, fault, 0.5, outcome{verdict: retryLater, delay: 16 * time.Second}},
		{"default policy, end", RetryPolicy{}.withDefaults(), 15, fault, 0.5, outcome{verdict: fail}},
	}
	for _, c := range cases {
		if got := c.policy.decide(c.attempt, c.err, Decision{}, c.random); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Whatever the policy, a message that always fails ends after exactly the attempts that the policy promises.
func TestDecideEnds(t *testing.T) {
	t.Parallel()
	for immediate := -1; immediate < 4; immediate++ {
		for delays := range 5 {
			policy := RetryPolicy{Immediate: immediate, Delays: make([]time.Duration, delays)}.withDefaults()
			attempt := 1
			for policy.decide(attempt, errors.New("always"), Decision{}, 0.5).verdict != fail {
				attempt++
			}
			if attempt != policy.attempts() {
				t.Errorf("%+v: ended after %d attempts, attempts() says %d", policy, attempt, policy.attempts())
			}
		}
	}
}

func TestUnrecoverableAndRetryAfterOfNil(t *testing.T) {
	t.Parallel()
	if Unrecoverable(nil) != nil || RetryAfter(time.Second, nil) != nil {
		t.Error("no error became an error")
	}
}

// Without end, a message that always fails goes through the policy's rounds and then through the last of them again and again, also where
// its attempts are no longer counted.
func TestDecideUnlimited(t *testing.T) {
	t.Parallel()
	policy := RetryPolicy{Immediate: 2, Delays: []time.Duration{time.Second, time.Minute}, Jitter: -1, Unlimited: true}.withDefaults()
	for _, c := range []struct {
		attempt int
		want    outcome
	}{
		{3, outcome{verdict: retryLater, delay: time.Second}},
		{6, outcome{verdict: retryLater, delay: time.Minute}},
		{7, outcome{verdict: retryNow}},
		{9, outcome{verdict: retryLater, delay: time.Minute}},
		{30_000, outcome{verdict: retryLater, delay: time.Minute}},
		{math.MaxInt16, outcome{verdict: retryLater, delay: time.Minute}},
		{math.MaxInt16 + 1, outcome{verdict: retryLater, delay: time.Minute}},
	} {
		if got := policy.decide(c.attempt, errors.New("always"), Decision{}, 0.5); got != c.want {
			t.Errorf("attempt %d: %+v, want %+v", c.attempt, got, c.want)
		}
	}
	if got := policy.decide(math.MaxInt16, Unrecoverable(errors.New("final")), Decision{}, 0.5); got.verdict != fail {
		t.Errorf("what no retry can fix: %+v", got)
	}
	for _, delays := range [][]time.Duration{{}, {0}, {time.Second, 0}} {
		if err := (RetryPolicy{Delays: delays, Unlimited: true}).withDefaults().validate(); err == nil {
			t.Errorf("Unlimited with delays %v is accepted", delays)
		}
	}
	if err := (RetryPolicy{Unlimited: true}).withDefaults().validate(); err != nil {
		t.Error(err)
	}
}

// What Decide chooses comes before what the policy counts, and after what a handler's error says for certain.
func TestDecideAsked(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault")
	policy := RetryPolicy{Immediate: -1, Delays: []time.Duration{time.Hour}, Jitter: -1}.withDefaults()
	retry := func(d time.Duration) Decision { return Decision{Outcome: OutcomeRetry, Delay: d} }
	for _, c := range []struct {
		name    string
		attempt int
		err     error
		asked   Decision
		want    outcome
	}{
		{"nothing", 1, fault, Decision{}, outcome{verdict: retryLater, delay: time.Hour}},
		{"nothing, at the last", 2, fault, Decision{}, outcome{verdict: fail}},
		{"retry beyond the last", 9, fault, retry(time.Minute), outcome{verdict: retryLater, delay: time.Minute}},
		{"at once", 9, fault, retry(0), outcome{verdict: retryNow}},
		{"at once, for the hundredth time", 100, fault, retry(0), outcome{verdict: retryLater, delay: time.Second}},
		{"fail", 1, fault, Decision{Outcome: OutcomeFail}, outcome{verdict: fail}},
		{"fail, with a named time", 1, RetryAfter(time.Minute, fault), Decision{Outcome: OutcomeFail}, outcome{verdict: fail}},
		{"retry, with a named time", 9, RetryAfter(time.Minute, fault), retry(0), outcome{verdict: retryLater, delay: time.Minute}},
		{"wait", 9, fault, Decision{Outcome: OutcomeWait, Delay: time.Minute}, outcome{verdict: wait, delay: time.Minute}},
		{"unrecoverable", 1, Unrecoverable(fault), retry(0), outcome{verdict: fail}},
		{"given back", 9, GiveBack(time.Minute, ""), Decision{Outcome: OutcomeFail}, outcome{verdict: wait, delay: time.Minute}},
		{"given back, wrapped", 9, fmt.Errorf("handle: %w", GiveBack(time.Minute, "")), Decision{}, outcome{verdict: wait, delay: time.Minute}},
		{"given back with a named time", 9, RetryAfter(time.Hour, GiveBack(time.Minute, "")), Decision{}, outcome{verdict: wait, delay: time.Minute}},
		{"given back for good", 1, Unrecoverable(GiveBack(time.Minute, "")), Decision{}, outcome{verdict: fail}},
		{"given back with results left open", 9, errors.Join(ErrLeftOpen, GiveBack(time.Minute, "")), Decision{}, outcome{verdict: fail}},
	} {
		if got := policy.decide(c.attempt, c.err, c.asked, 0.5); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// A func that panics, ends its goroutine or returns what is not valid chooses nothing, and it is known why.
func TestAskFaults(t *testing.T) {
	t.Parallel()
	for name, decide := range map[string]func(int, error) Decision{
		"panic: oh":           func(int, error) Decision { panic("oh") },
		"ended its goroutine": func(int, error) Decision { runtime.Goexit(); return Decision{} },
		`outcome "complete"`:  func(int, error) Decision { return Decision{Outcome: OutcomeComplete} },
		`outcome "rëtry\x00`: func(int, error) Decision {
			return Decision{Outcome: Outcome("rëtry\x00" + strings.Repeat("x", 1<<20))}
		},
		"a delay of -1":       func(int, error) Decision { return Decision{Outcome: OutcomeRetry, Delay: -1} },
		"from 0 to 100 years": func(int, error) Decision { return Decision{Outcome: OutcomeWait, Delay: maxDelay + 1} },
	} {
		got, fault := RetryPolicy{Decide: decide}.ask(1, errors.New("fault"))
		if got != (Decision{}) || fault == nil || !strings.Contains(fault.Error(), name) || len(fault.Error()) > 1000 {
			t.Errorf("%s: %+v, %.200v", name, got, fault)
		}
	}
	decide := func(int, error) Decision { t.Error("it was asked"); return Decision{} }
	for _, err := range []error{nil, Unrecoverable(errors.New("final")), ErrUndecodable, ErrUnknownType, GiveBack(0, "")} {
		if got, fault := (RetryPolicy{Decide: decide}).ask(1, err); got != (Decision{}) || fault != nil {
			t.Errorf("%v: %+v, %v", err, got, fault)
		}
	}
}

// Whatever a handler passes to GiveBack, it is a time and a line that can be stored and shown.
func TestGiveBackOfAnything(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		after  time.Duration
		reason string
		want   time.Duration
		text   string
	}{
		{time.Minute, "closed", time.Minute, "given back by its handler: closed"},
		{-time.Minute, "", 0, "given back by its handler"},
		{math.MinInt64, " \t\n ", 0, "given back by its handler"},
		{math.MaxInt64, "a\x00b\x1b[2Jc\r\nd\u2028e\u0085f", maxDelay, "given back by its handler: a b [2Jc  d e f"},
		{0, "bad \xff\xfe text", 0, "given back by its handler: bad \uFFFD\uFFFD text"},
	} {
		back := givenBackBy(GiveBack(c.after, c.reason))
		if back.after != c.want || back.Error() != c.text {
			t.Errorf("%v, %q: %v, %q; want %v, %q", c.after, c.reason, back.after, back.Error(), c.want, c.text)
		}
	}
	if text := GiveBack(0, strings.Repeat("ü", 1<<20)).Error(); len(text) > maxErrorText+100 || !utf8.ValidString(text) {
		t.Errorf("%d bytes are kept", len(text))
	}
}
