package sqlq

import (
	"context"
	"slices"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// source says where the fetches of an instance look. Receivers have a stretch handed out for each fetch (claim) and give it
// back, with what the fetch brought (fetched) or as it was (notFetched); whoever frees messages says which (freed, freedSpans,
// rewind); who wakes the instance says so (woke); and the connection that keeps house raises low (low.go).
//
// There is one kind, scattered, for messages in no order. Another would hand out other ranges: a stretch has all that a fetch
// must know of where to look.
//
// mu is one of the last in the order of locks: nothing of the instance's other parts is locked while it is held.
type source struct {
	mu ranked[ofPart]
	at scattered
}

// stretch is what one fetch is to look at: ranges of numbers, and all numbers beyond the last of them. It belongs to the receiver
// that fetches.
type stretch struct {
	n      int       // messages to fetch, at most
	began  time.Time // when it was handed out
	ranges []gap     // in order, up to after
	after  int64     // where what has no end begins

	leftmost bool  // nothing can be left of it: a short batch means that the queue is empty
	closed   int64 // numbers up to it were closed before the fetch
	high     int64 // the highest seq seen before it
	epoch    int   // of the source
	rewinds  int   // likewise

	// The fetch also reads which number was given out last, and then who writes; given is 0 where the role may not.
	reads   bool
	given   int64
	writers []string
}

// where returns what a fetch looks at as its statement takes it.
func (p *stretch) where() store.Where {
	where := store.Where{After: p.after, Limit: p.n}
	for _, r := range p.ranges {
		where.From, where.To = append(where.From, r.from), append(where.To, r.to)
	}
	return where
}

// leaveOut leaves numbers up to a seq out of the ranges: others look for them.
func (p *stretch) leaveOut(upTo int64) {
	p.ranges = slices.DeleteFunc(p.ranges, func(g gap) bool { return g.to <= upTo })
	if len(p.ranges) > 0 {
		p.ranges[0].from = max(p.ranges[0].from, upTo+1)
	}
}

// claim hands out where to fetch n messages now; not ok when there is no place to look that another fetch does not look at.
func (s *source) claim(now time.Time, n int) (p stretch, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p = stretch{n: n, began: now}
	if p.after, p.leftmost, ok = s.at.after(now, n); ok {
		s.at.lookForGaps(&p)
	}
	return p, ok
}

// fetched takes in what a fetch brought: so many messages, with these numbers; rest says that it left some behind that it could
// have brought. It reports whether low may be wrong, and when to ask for that again (mustAsk), if not 0.
func (s *source) fetched(p *stretch, numbers []span, got int, rest bool) (doubts bool, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	high := int64(0)
	if got > 0 {
		high = numbers[len(numbers)-1].to
	}
	doubts, again = s.at.doubts(p, got, high)
	s.at.look(p, numbers, got, rest)
	s.at.active = s.at.active || got > 0
	s.at.full = got >= p.n && got > 1
	return doubts, again
}

// notFetched has what a fetch was to bring fetched by the next.
func (s *source) notFetched(p *stretch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.giveBack(p)
}

// scanned ends the fetch of a stretch that is leftmost, whatever came of it.
func (s *source) scanned(p *stretch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.at.endScan(now, now.Sub(p.began))
}

// takeFreed adds the numbers of a batch that is settled in the same round trip to what a fetch looks for, but for those that were
// begun. It reports whether it could.
func (s *source) takeFreed(p *stretch, numbers []span, begun []int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.epoch != s.at.epoch {
		return false
	}
	var both gaps
	for _, r := range p.ranges {
		both.put(r)
	}
	for _, r := range numbers {
		both.open(r.from, r.to, p.began)
	}
	for _, seq := range begun {
		both.remove(seq, seq)
	}
	p.ranges = both.ranges
	return true
}

// freed has the next fetch find messages that are free again, from seq on; freedSpans those of certain numbers.
func (s *source) freed(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.open(seq)
}

func (s *source) freedSpans(numbers ...span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, r := range numbers {
		s.at.gaps.open(r.from, r.to, now)
	}
}

// goLeft has the next fetch begin at the left end: what fetches left out may be handled now.
func (s *source) goLeft() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.rewind()
}

// forget has fetches begin anew: a connection was lost, so the server may be another one, or have crashed and set a sequence
// back.
func (s *source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.reset()
}

// woke notes that somebody woke the instance; found, that messages were seen in the queue: what was put left of the others is
// to be found too.
func (s *source) woke(found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.woken = true; found {
		s.at.lastZero = time.Time{}
	}
}

// mustAsk reports whether the instance is to look once more for what it was woken for, unless that has been found.
func (s *source) mustAsk() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	asks := s.at.asks && s.at.woken
	s.at.asks = false
	return asks
}

// moved notes that messages have come by a fetch that was not handed out here.
func (s *source) moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.active = true
}

// lowest returns below which seq no message can be.
func (s *source) lowest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at.low
}

// learnLow reads where to start before the first fetch of an instance, and after a connection was lost. What keeps it from
// doing so only makes the fetch slower.
func (s *source) learnLow(ctx context.Context, db store.DBTX, st *store.Schema, queue string, p *stretch) {
	s.mu.Lock()
	known, epoch := s.at.known, s.at.epoch
	s.mu.Unlock()
	if known || !p.leftmost {
		return
	}
	low, err := st.Low.Read(ctx, db, queue)
	if err != nil {
		low = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.epoch == epoch {
		s.at.known, s.at.low, s.at.kept, s.at.lastZero = true, low, low, time.Now()
		p.after = low
	}
}

// Where a fetch starts. While the server cannot vacuum, because of a long report or an idle transaction, the entries of
// consumed messages stay in the index, and a fetch from its left end steps over all of them: slower with every message.
// The same goes for rows that others hold. So a fetch starts from one of
//
//   - the hint, the highest seq seen, while full batches come. Fetches under way at the same time have a stretch of seqs
//     each, because to step over a row that another one holds costs the server more than to take it. What the hint has gone
//     past and may still turn up is looked for by its number (gaps);
//   - low, below which no message can be or appear, when a batch from the hint comes back short, every lowEvery, and
//     always while the queue is nearly empty; by one receiver at a time, and not so often that it takes more than a
//     twentieth of the time;
//   - zero, every zeroEvery: low is an optimisation, never a truth. And at once, but not often, when an instance that was woken
//     after a while finds nothing: the sequence may have been set back. What lies at or below low then shows that it was.
//
// The queue's row keeps a low, somewhat behind, for processes that start. It commits with the rest of the database, so a
// crash or a failover that sets the queue's sequence back sets it back too.
const (
	lowEvery  = 100 * time.Millisecond
	lowShare  = 20
	lowRarest = 10 * time.Second // whatever a fetch took: it may have waited for the database
	zeroEvery = 30 * time.Second
	// A fetch that finds nothing although somebody woke the instance is no wonder for so long after one that brought
	// something: that was what it was woken for. Looks from zero for this reason are so far apart, and for none so far.
	noWonder                = 10 * time.Millisecond
	doubtEvery, doubtRarest = time.Second, 10 * time.Second
)

// scattered is what a source knows of a queue whose messages may be anywhere between low and the highest number given out. The
// source's mutex guards it.
type scattered struct {
	high     int64 // the highest seq seen
	claimed  int64 // how far the stretches of fetches under way go, at least
	low      int64
	known    bool  // low has been read from the queue's row
	kept     int64 // what that row has, as far as this process knows
	full     bool  // the last fetch filled its batch: there is a backlog, the hint will do
	gaps     gaps  // below high, and not handled by anybody as far as is known
	nextLow  time.Time
	lastZero time.Time
	scanning bool      // a fetch from low or zero is under way
	active   bool      // messages came since low was last raised
	epoch    int       // counts resets, so that a raise that began before one is dropped
	rewinds  int       // likewise counts rewinds, so that a fetch that began before one does not undo it
	brought  time.Time // when the last fetch that brought something was begun
	doubted  time.Time // when low was last doubted
	woken    bool      // somebody woke the instance, and no fetch has brought what for
	asks     bool      // low is to be doubted again for that, when it may

	// A raise under way: everything up to hi was numbered by transactions that had ended, or are among writers.
	raising bool
	hi      int64
	writers map[string]bool
}

// after returns the seq to fetch n messages after, and whether that is as far left as a message can be; not ok when
// another fetch already looks there and there is no other place to look.
func (s *scattered) after(now time.Time, n int) (seq int64, leftmost, ok bool) {
	if s.full && s.high > s.low && (s.scanning || now.Before(s.nextLow) && now.Sub(s.lastZero) < zeroEvery) {
		seq = max(s.high, s.claimed)
		s.claimed = seq + int64(n)
		return seq, false, true
	}
	if !s.full {
		s.claimed = 0
	}
	if s.scanning {
		return 0, false, false
	}
	s.scanning = true
	if s.known && now.Sub(s.lastZero) >= zeroEvery {
		s.lastZero = now
		return 0, true, true
	}
	return s.low, true, true
}

// doubts takes in what a fetch brought, and says whether low may be wrong, so that the next one begins at zero. The highest seq
// shows that it is wrong when that is not above it. What somebody woke the instance for is not given up because low was doubted
// a moment ago: again is how long from now to ask once more, if not 0.
func (s *scattered) doubts(p *stretch, got int, high int64) (doubts bool, again time.Duration) {
	if got > 0 {
		s.brought, s.woken = p.began, false
		if p.after == 0 && high <= s.low {
			s.reset()
		}
		return false, 0
	}
	apart := doubtRarest
	if s.woken {
		apart = doubtEvery
	}
	if !p.leftmost || p.after == 0 || p.began.Sub(s.brought) < noWonder {
		return false, 0
	}
	if soon := apart - p.began.Sub(s.doubted); soon > 0 {
		if !s.woken || s.asks {
			return false, 0
		}
		s.asks = true
		return false, soon
	}
	s.doubted, s.lastZero, s.woken = p.began, time.Time{}, false
	return true, 0
}

// endScan ends a fetch from low or zero.
func (s *scattered) endScan(now time.Time, took time.Duration) {
	s.scanning = false
	s.nextLow = now.Add(min(max(lowEvery, lowShare*took), lowRarest))
}

// rewind has the next fetch begin at the left end, and those after it go on from there.
func (s *scattered) rewind() {
	s.high, s.claimed = 0, 0
	s.rewinds++
}

// reset forgets what another connection, server or table may have made untrue. What somebody woke the instance for is still to
// be found.
func (s *scattered) reset() {
	*s = scattered{epoch: s.epoch + 1, scanning: s.scanning, woken: s.woken, asks: s.asks}
}
