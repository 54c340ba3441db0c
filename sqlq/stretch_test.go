package sqlq

import (
	"testing"
	"time"
)

// Fetches under way have stretches that follow on one another; what lies left of them is for a fetch from low.
func TestStretch(t *testing.T) {
	t.Parallel()
	now := time.Now()
	in := &instance{start: start{high: 1000, low: 100, full: true, lastLow: now, lastZero: now}}
	expect := func(what string, after int64, leftmost bool) {
		t.Helper()
		if a, l := in.stretch(now, 500); a != after || l != leftmost {
			t.Errorf("%s: after %d, leftmost %v; want %d, %v", what, a, l, after, leftmost)
		}
	}
	expect("the first", 1000, false)
	expect("while it is under way", 1500, false)
	in.start.high = 1480 // the first came back
	expect("the third", 2000, false)
	in.start.high = 3100 // with gaps between the seqs the second reached far
	expect("the fourth", 3100, false)
	in.leftBehind()
	expect("rows are free again", 100, true)
	expect("the fifth", 3600, false)
	in.start.full = false
	expect("a short batch", 100, true)
	in.start.full = true // by the one from low
	expect("a backlog again", 3100, false)
	in.start.reset()
	expect("another connection", 0, true)
}
