package sqlq

import (
	"errors"
	"fmt"
	"testing"
	"time"
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
		{"end of the first round", policy, 3, fault, 0.5, outcome{retryLater, 10 * time.Second}},
		{"begin of the second round", policy, 4, fault, 0.5, outcome{verdict: retryNow}},
		{"end of the second round", policy, 6, fault, 0.5, outcome{retryLater, 20 * time.Second}},
		{"least jitter", policy, 3, fault, 0, outcome{retryLater, 5 * time.Second}},
		{"most jitter", policy, 6, fault, 1, outcome{retryLater, 30 * time.Second}},
		{"last attempt", policy, 9, fault, 0.5, outcome{verdict: fail}},
		{"beyond the last attempt", policy, 100, fault, 0.5, outcome{verdict: fail}},
		{"no retries", none, 1, fault, 0.5, outcome{verdict: fail}},
		{"unrecoverable", policy, 1, Unrecoverable(fault), 0.5, outcome{verdict: fail}},
		{"unrecoverable, wrapped", policy, 1, fmt.Errorf("handle: %w", Unrecoverable(fault)), 0.5, outcome{verdict: fail}},
		{"undecodable", policy, 1, fmt.Errorf("%w: no JSON", ErrUndecodable), 0.5, outcome{verdict: fail}},
		{"unknown type", policy, 1, ErrUnknownType, 0.5, outcome{verdict: fail}},
		{"named time", policy, 1, RetryAfter(time.Minute, fault), 0.5, outcome{retryLater, time.Minute}},
		{"named time, wrapped", policy, 5, fmt.Errorf("handle: %w", RetryAfter(time.Minute, fault)), 0.9, outcome{retryLater, time.Minute}},
		{"named time in the past", policy, 1, RetryAfter(-time.Minute, fault), 0.5, outcome{retryLater, 0}},
		{"named time at the last attempt", policy, 9, RetryAfter(time.Minute, fault), 0.5, outcome{verdict: fail}},
		{"panic", policy, 1, &panicked{value: "oh"}, 0.5, outcome{verdict: retryNow}},
		{"default policy, last delay", RetryPolicy{}.withDefaults(), 12, fault, 0.5, outcome{retryLater, 16 * time.Second}},
		{"default policy, end", RetryPolicy{}.withDefaults(), 15, fault, 0.5, outcome{verdict: fail}},
	}
	for _, c := range cases {
		if got := c.policy.decide(c.attempt, c.err, c.random); got != c.want {
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
			for policy.decide(attempt, errors.New("always"), 0.5).verdict != fail {
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

func TestBreaker(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := breaker{limit: 3}
	b.failure(now, false)
	b.failure(now, false)
	b.success()
	b.failure(now, false)
	b.failure(now, false)
	if !b.closed() {
		t.Fatal("opened although a success came between the failures")
	}
	if !b.failure(now, false) || b.closed() {
		t.Fatal("the third failure in a row did not open it")
	}
	if b.failure(now, false) {
		t.Error("it opened a second time")
	}
	if b.beginProbe(now) || !b.beginProbe(now.Add(b.wait)) || b.beginProbe(now.Add(b.wait)) {
		t.Error("not one probe, after the pause")
	}
	for range 10 {
		b.failure(now, false)
	}
	if b.wait != time.Second {
		t.Errorf("the pause grew to %v, want 1 s", b.wait)
	}
	b.endProbe()
	if b.failure(now, true); !b.beginProbe(now) {
		t.Error("a message that is known to fail makes the next probe wait")
	}
	b.success()
	for range 10 {
		b.failure(now, true)
	}
	if !b.closed() || b.wait != 0 {
		t.Error("a success did not close it")
	}
}
