package sqlq

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

func (g *gaps) String() string {
	s := ""
	for _, r := range g.ranges {
		s += fmt.Sprintf("%d-%d ", r.from, r.to)
	}
	return s
}

// Ranges stay in order and apart, whatever is added and found.
func TestGapsAreASet(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	var g gaps
	want := map[int64]bool{}
	for range 3000 {
		from := random.Int64N(200)
		to := from + random.Int64N(20)
		adds := random.IntN(2) == 0
		if adds {
			g.open(from, to, now)
		} else {
			g.remove(from, to)
		}
		for n := from; n <= to; n++ {
			want[n] = adds
		}
		last, got := int64(-1), map[int64]bool{}
		for _, r := range g.ranges {
			if r.from <= last || r.to < r.from {
				t.Fatalf("not in order: %v", &g)
			}
			for last = r.from; last <= r.to; last++ {
				got[last] = true
			}
			last = r.to
		}
		for n := range int64(220) {
			if got[n] != want[n] {
				t.Fatalf("number %d: there %v, want %v: %v", n, got[n], want[n], &g)
			}
		}
	}
}

// A number is closed when everybody has ended who wrote when it had been given out.
func TestGapsAreClosed(t *testing.T) {
	t.Parallel()
	var g gaps
	for i, c := range []struct {
		given   int64
		writers []string
		closed  int64
	}{
		{100, []string{"a"}, 0}, // who knows for how long it has
		{200, []string{"a", "b"}, 0},
		{300, []string{"b", "c"}, 100}, // b began after 100
		{400, []string{"c"}, 200},
		{500, nil, 500},
		{600, []string{"d"}, 500},
		{700, []string{"e"}, 600},
	} {
		g.read(c.given, c.writers)
		if g.closed != c.closed {
			t.Errorf("reading %d: closed up to %d, want %d", i, g.closed, c.closed)
		}
	}
	g.pass(650, 660, g.closed, time.Now())
	if g.read(5, nil); g.closed != 0 || len(g.ranges) != 0 || g.given != 0 {
		t.Errorf("the sequence was set back: closed up to %d, %v", g.closed, &g)
	}
}

// What is open is looked for at growing intervals, and once more when it is closed.
func TestGapsAreLookedFor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var g gaps
	g.pass(10, 19, 0, now)
	if taken := g.take(now, 100, 500); taken != nil {
		t.Errorf("at once: %v", taken)
	}
	wait := gapWait
	for range 12 {
		now = now.Add(wait)
		taken := g.take(now, 100, 500)
		if len(taken) != 1 || len(g.ranges) != 0 {
			t.Fatalf("after %v: %v, left %v", wait, taken, &g)
		}
		g.looked(taken[0], 5, now)
		if again := g.take(now, 100, 500); again != nil {
			t.Fatalf("at once again: %v", again)
		}
		wait = min(2*wait, mostGapWait)
	}
	g.closed = 14
	if taken := g.take(now, 100, 500); taken != nil {
		t.Errorf("half of it is closed: %v", taken)
	}
	g.closed = 19
	taken := g.take(now, 100, 500)
	if len(taken) != 1 {
		t.Fatalf("closed: %v", taken)
	}
	if g.looked(taken[0], 19, now); len(g.ranges) != 0 {
		t.Errorf("closed and looked for: %v", &g)
	}

	g.open(1, 100_000, now)
	if taken := g.take(now, 50_000, 500); taken[0] != (gap{1, 2000, now, gapWait}) || g.String() != "2001-100000 " {
		t.Errorf("of a wide one: %v, left %v", taken, &g)
	}
	if taken := g.take(now, 2500, 500); taken[0].to != 2500 {
		t.Errorf("not beyond where the fetch begins: %v", taken)
	}
	for n := range int64(3 * maxGaps) {
		g.open(200_000+2*n, 200_000+2*n, now)
	}
	if len(g.ranges) > maxGaps {
		t.Errorf("%d ranges", len(g.ranges))
	}
}

// ofSeqs is a fetch's messages.
func ofSeqs(ranges ...[2]int64) (ms []store.Message) {
	for _, r := range ranges {
		for seq := r[0]; seq <= r[1]; seq++ {
			ms = append(ms, store.Message{Seq: seq})
		}
	}
	return ms
}

// Each fetch answers for its stretch: what it passed over, what another has read, and what it did not get to.
func TestStretchesAndGaps(t *testing.T) {
	t.Parallel()
	now := time.Now()
	begin := func(s *scattered, n int) *stretch {
		w := &stretch{n: n, began: time.Now()}
		w.after, w.leftmost, _ = s.after(now, n)
		s.lookForGaps(w)
		return w
	}
	end := func(s *scattered, w *stretch, ranges ...[2]int64) {
		ms := ofSeqs(ranges...)
		s.look(w, spansOf(ms), len(ms), false)
	}
	fresh := func() *scattered {
		return &scattered{high: 1000, low: 100, known: true, full: true, nextLow: now.Add(time.Hour), lastZero: now}
	}

	s := fresh()
	first, second := begin(s, 10), begin(s, 10)
	end(s, second, [2]int64{1011, 1020})
	end(s, first, [2]int64{1001, 1004}, [2]int64{1006, 1008}, [2]int64{1021, 1023}) // 1005, 1009 and 1010 were not there
	if got := s.gaps.String(); got != "1005-1005 1009-1010 " {
		t.Errorf("two stretches: %s", got)
	}
	if s.high != 1023 {
		t.Errorf("the highest seen is %d", s.high)
	}

	s = fresh()
	w := begin(s, 10)
	w.reads, w.given = true, 1015
	end(s, w, [2]int64{1001, 1002}, [2]int64{1006, 1009}, [2]int64{1014, 1014}, [2]int64{1017, 1019})
	if got := s.gaps.String(); got != "1016-1016 " {
		t.Errorf("nobody wrote when 1015 had been given out: %s", got)
	}

	// Rows that are free again are found although a fetch that was under way saw higher ones.
	s = fresh()
	first, second = begin(s, 10), begin(s, 10)
	end(s, first, [2]int64{1001, 1010})
	s.gaps.open(1005, 1010, now)
	end(s, second, [2]int64{1011, 1020})
	if w := begin(s, 10); len(w.ranges) != 1 || w.ranges[0].from != 1005 || w.ranges[0].to != 1010 || w.after != 1020 {
		t.Errorf("free again: looks for %v and after %d", w.ranges, w.after)
	}

	// Where they fill the fetch, what is beyond the hint is read by the next.
	s = fresh()
	s.gaps.open(901, 912, now)
	w = begin(s, 10)
	end(s, w, [2]int64{901, 910})
	if w = begin(s, 10); w.after != 1000 || len(w.ranges) != 1 || w.ranges[0].from != 911 {
		t.Errorf("after a full fetch: looks for %v and after %d", w.ranges, w.after)
	}
	other := begin(s, 10)
	end(s, w, [2]int64{911, 912}, [2]int64{1001, 1008})
	end(s, other, [2]int64{1011, 1020})
	if w = begin(s, 10); w.after != 1020 || len(w.ranges) != 1 || w.ranges[0].from != 1009 || w.ranges[0].to != 1010 {
		t.Errorf("another fetch had begun beyond: looks for %v and after %d", w.ranges, w.after)
	}

	// A fetch that failed.
	s = fresh()
	s.gaps.open(901, 902, now)
	w, other = begin(s, 10), begin(s, 10)
	s.giveBack(w)
	end(s, other, [2]int64{1011, 1020})
	if w = begin(s, 10); len(w.ranges) != 2 || !slices.Equal([]int64{w.ranges[0].from, w.ranges[0].to, w.ranges[1].from, w.ranges[1].to}, []int64{901, 902, 1001, 1010}) {
		t.Errorf("after one failed: looks for %v", w.ranges)
	}
}
