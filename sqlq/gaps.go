package sqlq

import (
	"cmp"
	"slices"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// gaps are the numbers of messages that a fetch passed over and that may still turn up: it did not see them because the
// transaction that took the number had not committed, or because the row was locked and has been freed since. The hint has
// gone past them, so fetches look for exactly these numbers, as well as beyond the hint.
//
// The other numbers that were not there never come: those of rollbacks, and those of messages that others have handled.
// The transactions that write to the table tell them apart. Whoever took a number held the table's lock before and holds it
// to the end, so once everybody has ended who was seen writing when a number had been given out, that number is closed:
// its message is visible, or there is none. A number that was closed before the snapshot of the fetch that passed over it
// is no gap; one that is closed later is looked for once more. Until then it is looked for at growing intervals, so that a
// transaction that stays open for long costs little. This takes for granted that a sequence gives its numbers out one at a time;
// where it does not, as after ALTER SEQUENCE … CACHE, late messages wait for a look from low.
//
// The source's mutex guards it. Ranges are in order and apart; those that a fetch under way looks for are not among them.
type gaps struct {
	ranges  []gap
	closed  int64            // numbers up to it never come any more if they were not there
	given   int64            // the highest number given out, at the last reading
	writers map[string]int64 // those who wrote at the last reading: each took higher numbers only
	reading bool             // a fetch under way brings a reading
	next    time.Time        // no reading before
}

// gap is a range of numbers, both ends included.
type gap struct {
	from, to int64
	due      time.Time
	wait     time.Duration // how long it was waited for before due
}

const (
	maxGaps   = 1024 // ranges; the lowest are forgotten, a look from low finds them
	readEvery = 20 * time.Millisecond
	// gapWait is how long a number that is not closed is left alone at first, and mostGapWait at last.
	gapWait, mostGapWait = 20 * time.Millisecond, 5 * time.Second
	// gapsAtOnce bounds the ranges, and gapNumbers, times the messages to fetch, the numbers that a fetch looks for: most are
	// rows that others have removed, of which vacuum has left the entries in the index.
	gapsAtOnce, gapNumbers = 64, 4
)

// lookForGaps adds to a fetch from the hint what it is to look for besides.
func (s *scattered) lookForGaps(p *stretch) {
	p.closed, p.high, p.epoch, p.rewinds = s.gaps.closed, s.high, s.epoch, s.rewinds
	if p.leftmost {
		return
	}
	p.reads = s.gaps.wantsReading(p.began)
	p.ranges = s.gaps.take(p.began, p.after, p.n)
}

// open has the next fetch find messages that are free again, from seq on: a batch of them, not all that came since.
func (s *scattered) open(seq int64) {
	s.gaps.open(seq, min(max(s.high, s.claimed), seq+mostBatch), time.Now())
}

// look takes in which messages a fetch brought; rest says that it left some behind that it could have brought.
func (s *scattered) look(p *stretch, got []span, n int, rest bool) {
	if p.epoch != s.epoch {
		return // it asked another server
	}
	now, closed := time.Now(), p.closed
	if p.reads {
		closed = max(closed, s.gaps.read(cmp.Or(p.given, p.high), p.writers))
	}
	last, whole := p.after, n < p.n && !rest
	if len(got) > 0 {
		last = got[len(got)-1].to
	}
	for _, r := range p.ranges {
		if !whole && last <= p.after && r.to > last { // it did not get that far
			s.gaps.open(max(r.from, last+1), r.to, now)
			r.to = last
		}
		s.gaps.looked(r, closed, now)
	}
	// A fetch answers for its own stretch. The one that nobody has started beyond answers for all that it has seen.
	passed, stretch := p.after, p.after+int64(p.n)
	mine := last
	switch {
	case p.leftmost && s.high == 0 && len(got) > 0:
		passed = got[0].from - 1
	case p.leftmost:
		passed = max(passed, s.high)
	case s.claimed > stretch:
		mine = min(last, stretch)
	}
	for _, r := range got {
		s.gaps.remove(r.from, r.to)
		if r.to > passed {
			s.gaps.pass(passed+1, min(r.from-1, mine), closed, now)
			passed = r.to
		}
	}
	if p.rewinds != s.rewinds {
		return
	}
	s.high = max(s.high, last)
	switch {
	case p.leftmost && whole:
		s.gaps.clear()
	case !p.leftmost && !whole && passed < stretch: // the gaps took the place of what is beyond the hint, or bodies are large
		if s.claimed <= stretch {
			s.claimed = passed
		} else {
			s.gaps.open(passed+1, stretch, now)
		}
	}
}

// giveBack has what a fetch was to bring fetched by the next.
func (s *scattered) giveBack(p *stretch) {
	if p.epoch != s.epoch {
		return
	}
	if p.reads {
		s.gaps.reading = false
	}
	if p.leftmost {
		s.high, s.claimed = min(s.high, p.after), 0
		return
	}
	now := time.Now()
	for _, r := range p.ranges {
		s.gaps.open(r.from, r.to, now)
	}
	s.gaps.open(p.after+1, p.after+int64(p.n), now)
}

// span is a run of numbers that are all there, both ends included.
type span struct{ from, to int64 }

// spansOf returns the numbers of fetched messages, in their order.
func spansOf(ms []store.Message) (spans []span) {
	for i := range ms {
		if seq := ms[i].Seq; i > 0 && seq == ms[i-1].Seq+1 {
			spans[len(spans)-1].to = seq
		} else {
			spans = append(spans, span{seq, seq})
		}
	}
	return spans
}

// wantsReading says whether a fetch should bring a reading of who writes, and takes it. It costs the server as much as some
// messages do, so it is for numbers that may still be to come only: what is known to be there, or never to come, needs none.
func (g *gaps) wantsReading(now time.Time) bool {
	if n := len(g.ranges); g.reading || now.Before(g.next) || n == 0 || g.ranges[n-1].to <= g.closed {
		return false
	}
	g.reading, g.next = true, now.Add(readEvery)
	return true
}

// read takes in a reading: the highest number that had been given out, and then who wrote. It returns up to which number
// all were closed at that time.
func (g *gaps) read(given int64, writers []string) (closed int64) {
	g.reading = false
	if given < g.given { // somebody has set the sequence back
		*g = gaps{next: g.next}
		return 0
	}
	closed = given
	took := make(map[string]int64, len(writers))
	for _, w := range writers {
		above, known := g.writers[w]
		if !known {
			above = g.given // it did not write then
		}
		took[w] = above
		closed = min(closed, above)
	}
	g.writers, g.given, g.closed = took, given, max(g.closed, closed)
	return closed
}

// take takes out the ranges to look for now, none above last, and no more of them than a fetch of n messages should.
func (g *gaps) take(now time.Time, last int64, n int) (taken []gap) {
	if len(g.ranges) == 0 {
		return nil
	}
	left := int64(gapNumbers * max(n, 250))
	kept := g.ranges[:0]
	for i, r := range g.ranges {
		if len(taken) == gapsAtOnce || left == 0 || r.from > last {
			kept = append(kept, g.ranges[i:]...)
			break
		}
		if r.to > g.closed && now.Before(r.due) {
			kept = append(kept, r)
			continue
		}
		part := r
		part.to = min(r.to, last, r.from+left-1)
		left -= part.to - part.from + 1
		taken = append(taken, part)
		if part.to < r.to {
			r.from = part.to + 1
			kept = append(kept, r)
		}
	}
	g.ranges = kept
	return taken
}

// looked puts back what is left of a range that was looked for, when all numbers up to closed had been closed before; what of
// it was found is removed after that.
func (g *gaps) looked(r gap, closed int64, now time.Time) {
	r.wait = min(2*r.wait, mostGapWait)
	r.from, r.due = max(r.from, closed+1), now.Add(r.wait)
	g.put(r)
}

// pass adds what a fetch passed over, when all numbers up to closed had been closed before.
func (g *gaps) pass(from, to, closed int64, now time.Time) {
	g.put(gap{max(from, closed+1), to, now.Add(gapWait), gapWait})
}

// open adds numbers that are to be looked for by the next fetch, because nobody has read them or their rows are free again.
// With their neighbours of the same kind they make one range.
func (g *gaps) open(from, to int64, now time.Time) {
	if from > to {
		return
	}
	i := g.add(gap{from, to, now, gapWait})
	r, first, end := g.ranges[i], i, i+1
	if i > 0 && g.ranges[i-1].to == from-1 && g.ranges[i-1].isOpen(now) {
		first, r.from = i-1, g.ranges[i-1].from
	}
	if end < len(g.ranges) && g.ranges[end].from == to+1 && g.ranges[end].isOpen(now) {
		end, r.to = end+1, g.ranges[end].to
	}
	if end-first > 1 {
		g.ranges = slices.Replace(g.ranges, first, end, r)
	}
	g.bound()
}

// isOpen reports whether the next fetch is to look for it, and none has looked yet.
func (r gap) isOpen(now time.Time) bool { return r.wait == gapWait && !r.due.After(now) }

// put adds a range, which may be empty.
func (g *gaps) put(r gap) {
	if r.from <= r.to {
		g.add(r)
		g.bound()
	}
}

// add adds a range and returns where it is; of numbers that are there already it is the new one that counts.
func (g *gaps) add(r gap) int {
	g.remove(r.from, r.to)
	i, _ := slices.BinarySearchFunc(g.ranges, r.from, func(r gap, n int64) int { return cmp.Compare(r.from, n) })
	g.ranges = slices.Insert(g.ranges, i, r)
	return i
}

// bound forgets the lowest ranges beyond maxGaps.
func (g *gaps) bound() {
	if len(g.ranges) > maxGaps {
		g.ranges = slices.Delete(g.ranges, 0, len(g.ranges)-maxGaps)
	}
}

// remove takes out numbers that have been found.
func (g *gaps) remove(from, to int64) {
	// The first range that ends at from or later, and the first after it that begins beyond to.
	i, _ := slices.BinarySearchFunc(g.ranges, from, func(r gap, n int64) int { return cmp.Compare(r.to, n) })
	j := i
	for j < len(g.ranges) && g.ranges[j].from <= to {
		j++
	}
	if i == j {
		return
	}
	first, last := g.ranges[i], g.ranges[j-1]
	var rest [2]gap
	n := 0
	if first.from < from {
		first.to = from - 1
		rest[n] = first
		n++
	}
	if last.to > to {
		last.from = to + 1
		rest[n] = last
		n++
	}
	g.ranges = slices.Replace(g.ranges, i, j, rest[:n]...)
}

// clear forgets the ranges: a look from low has seen all that there is.
func (g *gaps) clear() { g.ranges = g.ranges[:0] }
