package sqlq

import (
	"testing"
	"time"
)

// Fetches under way at the same time have a stretch each, one at a time looks from low, and what is free again is looked
// for next.
func TestWhereFetchesStart(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := &scattered{high: 1000, low: 100, known: true, full: true, nextLow: now.Add(lowEvery), lastZero: now}
	expect := func(what string, after int64, leftmost bool) {
		t.Helper()
		if a, l, ok := s.after(now, 500); a != after || l != leftmost || !ok {
			t.Errorf("%s: after %d, leftmost %v, ok %v; want %d, %v", what, a, l, ok, after, leftmost)
		}
	}
	expect("the first", 1000, false)
	expect("while it is under way", 1500, false)
	s.high = 1480 // the first came back
	expect("the third", 2000, false)
	s.high = 3100 // with gaps between the seqs the second reached far
	expect("the fourth", 3100, false)
	s.open(2001)
	w := stretch{began: time.Now(), after: 3600, n: 500}
	if s.lookForGaps(&w); len(w.ranges) != 1 || w.ranges[0].from != 2001 || w.ranges[0].to != 3600 {
		t.Errorf("rows are free again: it looks for %v", w.ranges)
	}
	if s.lookForGaps(&w); len(w.ranges) > 0 {
		t.Errorf("while that is under way another looks for %v", w.ranges)
	}
	s.claimed = 3600

	now = now.Add(2 * lowEvery)
	expect("it is time to look from low", 100, true)
	expect("while that is under way", 3600, false)
	s.full = false // a short batch
	if _, _, ok := s.after(now, 500); ok {
		t.Error("two look from low at a time")
	}
	s.endScan(now, time.Second) // a long time, so the next will be long in coming
	expect("a short batch", 100, true)
	s.full = true // by the one from low
	s.endScan(now, time.Second)
	now = now.Add(2 * lowEvery)
	expect("a backlog again", 3100, false)
	now = now.Add(lowRarest)
	expect("at last", 100, true)
	s.endScan(now, 0)
	now = now.Add(zeroEvery)
	expect("from zero", 0, true)
	s.endScan(now, 0)

	s.reset()
	expect("another connection", 0, true)
}

// A wake-up right after low was doubted is not forgotten when its fetch finds nothing: low is doubted again as soon as that is
// allowed, and not more often.
func TestWakeRightAfterADoubt(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s := &scattered{low: 100, known: true}
	empty := stretch{began: began, after: 100, n: 500, leftmost: true}
	if doubts, _ := s.doubts(&empty, 0, 0); !doubts {
		t.Fatal("an empty fetch after a long time does not doubt low")
	}
	empty.began = began.Add(300 * time.Millisecond)
	if doubts, again := s.doubts(&empty, 0, 0); doubts || again != 0 {
		t.Errorf("nobody woke it, but it doubts %v, again in %v", doubts, again)
	}
	s.woken = true
	if doubts, again := s.doubts(&empty, 0, 0); doubts || again != 700*time.Millisecond {
		t.Errorf("woken right after a doubt it doubts %v, again in %v; want in 700ms", doubts, again)
	}
	if doubts, again := s.doubts(&empty, 0, 0); doubts || again != 0 {
		t.Errorf("woken twice it doubts %v, again in %v", doubts, again)
	}
	s.asks = false // it is time
	empty.began = began.Add(doubtEvery)
	if doubts, again := s.doubts(&empty, 0, 0); !doubts || again != 0 {
		t.Errorf("after %v it doubts %v, again in %v", doubtEvery, doubts, again)
	}
}

// What somebody woke the instance for is looked for even if the source begins anew meanwhile, as when the connection that keeps
// house finds before the next doubt of low that the sequence was set back.
func TestWakeBeforeAReset(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var s source
	s.at = scattered{low: 500, known: true, lastZero: now, doubted: now}
	s.woke(false)
	p, ok := s.claim(now.Add(300*time.Millisecond), 10)
	if !ok {
		t.Fatal("nothing to fetch")
	}
	if doubts, again := s.fetched(&p, nil, 0, false); doubts || again == 0 {
		t.Fatalf("woken right after a doubt it doubts %v, again in %v", doubts, again)
	}
	if !s.beginRaise(0, 1, nil) {
		t.Fatal("a sequence that was set back is not noticed")
	}
	if !s.mustAsk() {
		t.Error("what it was woken for is forgotten")
	}
}
