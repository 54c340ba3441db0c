package sqlq

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func breakerOf(failures int) *breaker {
	b := newBreaker(BreakerPolicy{Failures: failures}.withDefaults(1))
	return &b
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := breakerOf(3)
	b.failure(now, "a", false)
	b.failure(now, "a", false)
	b.success(1)
	b.failure(now, "a", false)
	b.failure(now, "a", false)
	if !b.closed() {
		t.Fatal("opened although a success came between the failures")
	}
	if !b.failure(now, "a", false) || b.closed() {
		t.Fatal("the third failure in a row did not open it")
	}
	if b.failure(now, "a", false) {
		t.Error("it opened a second time")
	}
	probes := func(at time.Time) bool { _, ok := b.beginProbe(at); return ok }
	if probes(now) || !probes(now.Add(b.wait)) || probes(now.Add(b.wait)) {
		t.Error("not one probe, after the pause")
	}
	for range 10 {
		b.failure(now, "b", false)
	}
	if b.wait != time.Second {
		t.Errorf("the pause grew to %v, want 1 s", b.wait)
	}
	b.endProbe()
	if b.failure(now, "a", true); !probes(now) {
		t.Error("a message that is known to fail makes the next probe wait")
	}
	b.success(1)
	for range 10 {
		b.failure(now, "a", true)
	}
	if !b.closed() || b.wait != 0 {
		t.Error("a success did not close it")
	}
}

// A service that is broken fails in few ways, and opens it; messages that are at fault fail in many ways, and do not.
func TestBreakerTellsABrokenServiceFromBadMessages(t *testing.T) {
	t.Parallel()
	now := time.Now()
	opensAfter := func(group func(n int) string) int {
		b := breakerOf(10)
		for n := range 10_000 {
			if b.failure(now, group(n), false) {
				return n + 1
			}
		}
		return 0
	}
	for _, c := range []struct {
		name        string
		group       func(n int) string
		least, most int
	}{
		{"one way", func(int) string { return "refused" }, 10, 10},
		{"three ways by turns", func(n int) string { return fmt.Sprint(n % 3) }, 28, 28},
		{"each in its own way", func(n int) string { return fmt.Sprint(n) }, 0, 0},
		{"twenty ways by turns", func(n int) string { return fmt.Sprint(n % 20) }, 0, 0},
		{"a broken service among bad messages", func(n int) string { return fmt.Sprint(n * (n % 2)) }, 10, 60},
		{"a broken service after bad messages", func(n int) string { return fmt.Sprint(min(n, 5_000)) }, 5_010, 5_020},
	} {
		if got := opensAfter(c.group); got < c.least || got > c.most {
			t.Errorf("%s: it opened after %d failures, want %d to %d", c.name, got, c.least, c.most)
		}
	}
	wrapped := func(name string) error {
		return fmt.Errorf("charge %s: %w", name, &refusedErr{"dial tcp 10.0.0.1:5432: connection refused"})
	}
	if breakerGroup(wrapped("Smith")) != breakerGroup(wrapped("Jones")) {
		t.Error("what wraps an error makes another group of it")
	}
	if breakerGroup(errors.New("no customer Smith")) == breakerGroup(errors.New("no customer Jones")) {
		t.Error("two texts are in one group")
	}
}

type refusedErr struct{ text string }

func (e *refusedErr) Error() string { return e.text }

// Probes go ahead in growing steps, and begin anew when there is nothing ahead. A success behind those that fail is remembered
// for a minute, in which twice as many must fail, and so on.
func TestBreakerProbesAhead(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := breakerOf(2)
	b.failure(now, "a", false)
	b.failure(now, "a", false)
	var seqs []int64
	for range 6 {
		now = now.Add(time.Minute)
		from, ok := b.beginProbe(now)
		if !ok {
			t.Fatal("no probe")
		}
		seqs = append(seqs, from+1) // there is a message with each number
		b.failure(now, "a", false)
		b.goAhead(from + 1)
		b.endProbe()
	}
	if fmt.Sprint(seqs) != "[1 3 7 15 31 63]" {
		t.Errorf("probes were of %v", seqs)
	}
	// There is nothing so far ahead: they come nearer to where the queue ends, and then begin anew.
	seqs = nil
	now = now.Add(time.Minute)
	for len(seqs) == 0 || seqs[len(seqs)-1] != 0 {
		if from, ok := b.beginProbe(now); ok {
			seqs = append(seqs, from)
			b.foundNone(now)
		}
		now = now.Add(firstPause)
	}
	if fmt.Sprint(seqs) != "[126 94 78 70 66 64 63 63 0]" {
		t.Errorf("probes were behind %v", seqs)
	}
	now = now.Add(time.Minute)
	b.beginProbe(now)
	b.endProbe()
	if b.looked(false); b.resting() {
		t.Error("it rests although nothing was found from the beginning")
	}
	if !b.success(40) {
		t.Fatal("a success did not close it")
	}
	now = time.Now()
	for n := range 3 {
		if b.failure(now, "a", false) {
			t.Fatalf("opened after %d failures", n+1)
		}
	}
	if !b.failure(now, "a", false) {
		t.Fatal("not opened after twice as many failures")
	}
	if from, ok := b.beginProbe(now.Add(time.Second)); !ok || from != 40 {
		t.Errorf("the next probe is from %d, %v; want from where one succeeded", from, ok)
	}
	b.success(50)
	now = now.Add(2 * doubtFor)
	if b.failure(now, "a", false); !b.failure(now, "a", false) {
		t.Error("not opened after as many failures as at first, though much later")
	}
	if from, _ := b.beginProbe(now.Add(time.Second)); from != 0 {
		t.Errorf("the next probe is from %d, want from the beginning", from)
	}
}

// Switched off it never opens.
func TestBreakerOff(t *testing.T) {
	t.Parallel()
	b := newBreaker(BreakerPolicy{Off: true}.withDefaults(1))
	if !b.closed() || b.success(1) {
		t.Error("it is not closed")
	}
	for _, p := range []BreakerPolicy{{Failures: -1}, {Failures: mostFailures + 1}, {MaxPause: -1}, {MaxPause: time.Microsecond}, {MaxPause: 2 * time.Hour}} {
		if p.withDefaults(1).validate() == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
	if p := (BreakerPolicy{}).withDefaults(64); p.Failures != 64 || p.MaxPause != time.Second || p.validate() != nil {
		t.Errorf("default: %+v", p)
	}
}
