package sqlq

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

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
	lowEvery   = 100 * time.Millisecond
	lowShare   = 20
	lowRarest  = 10 * time.Second // whatever a fetch took: it may have waited for the database
	zeroEvery  = 30 * time.Second
	raiseEvery = 250 * time.Millisecond
	// keepEvery and keepApart bound how often the queue's row is written: it is read by everybody, and cannot be
	// vacuumed either.
	keepEvery, keepApart = 5 * time.Second, 10_000
	// A fetch that finds nothing although somebody woke the instance is no wonder for so long after one that brought
	// something: that was what it was woken for. Looks from zero for this reason are so far apart, and for none so far.
	noWonder                = 10 * time.Millisecond
	doubtEvery, doubtRarest = time.Second, 10 * time.Second
)

// start is what an instance knows of where to fetch. The instance's mutex guards it.
type start struct {
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
func (s *start) after(now time.Time, n int) (seq int64, leftmost, ok bool) {
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
func (s *start) doubts(w work, got int, high int64) (doubts bool, again time.Duration) {
	if got > 0 {
		s.brought, s.woken = w.began, false
		if w.after == 0 && high <= s.low {
			s.reset()
		}
		return false, 0
	}
	apart := doubtRarest
	if s.woken {
		apart = doubtEvery
	}
	if !w.leftmost || w.after == 0 || w.began.Sub(s.brought) < noWonder {
		return false, 0
	}
	if soon := apart - w.began.Sub(s.doubted); soon > 0 {
		if !s.woken || s.asks {
			return false, 0
		}
		s.asks = true
		return false, soon
	}
	s.doubted, s.lastZero, s.woken = w.began, time.Time{}, false
	return true, 0
}

// askAgain has the instance look once more for what it was woken for, unless that has been found.
func (in *instance) askAgain() {
	in.mu.Lock()
	asks := in.start.asks && in.start.woken
	in.start.asks = false
	in.mu.Unlock()
	if asks {
		in.wake()
	}
}

// scanned ends a fetch from low or zero.
func (s *start) scanned(now time.Time, took time.Duration) {
	s.scanning = false
	s.nextLow = now.Add(min(max(lowEvery, lowShare*took), lowRarest))
}

// rewind has the next fetch begin at the left end, and those after it go on from there.
func (s *start) rewind() {
	s.high, s.claimed = 0, 0
	s.rewinds++
}

// reset forgets what another connection, server or table may have made untrue.
func (s *start) reset() {
	*s = start{epoch: s.epoch + 1, scanning: s.scanning}
}

// learnLow reads where to start before the first fetch of an instance, and after a connection was lost. What keeps it from
// doing so only makes the fetch slower.
func (r *receiver) learnLow(ctx context.Context, w *work) {
	in := w.in
	in.mu.Lock()
	known, epoch := in.start.known, in.start.epoch
	in.mu.Unlock()
	if known || !w.leftmost {
		return
	}
	low, err := r.run.client.store.Low.Read(ctx, r.conn, in.endpoint.Name)
	if err != nil {
		low = 0
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if s := &in.start; s.epoch == epoch {
		s.known, s.low, s.kept, s.lastZero = true, low, low, time.Now()
		w.after = low
	}
}

// restart has all instances fetch from the left end again: a connection was lost, so the server may be another one, or
// have crashed and set a sequence back.
func (r *runner) restart() {
	for _, in := range r.instances {
		in.mu.Lock()
		in.start.reset()
		in.mu.Unlock()
	}
}

// raiser moves low on, on the connection that keeps house. Its fields are that goroutine's.
type raiser struct {
	run    *runner
	raised time.Time
	kept   time.Time // when a low was last written

	mayNotRaise, mayNotKeep bool // the role lacks the privilege
}

// raiseInTime raises low every raiseEvery, and returns when to be called again. A role that may not goes without: it is an
// optimisation.
func (r *raiser) raiseInTime(ctx context.Context, c *session.Conn) (again time.Duration, err error) {
	if r.mayNotRaise || !r.run.raises() {
		return time.Hour, nil
	}
	if time.Since(r.raised) < raiseEvery {
		return raiseEvery, nil
	}
	r.raised = time.Now()
	err = r.raise(ctx, c)
	if session.State(err) == session.InsufficientPrivilege {
		r.mayNotRaise = true
		r.run.client.log.Warn("sqlq: this role may not read the sequences of the queues, so fetches from a queue that cannot be vacuumed become slow; grant SELECT on the sequences of the schema", "schema", r.run.client.config.Schema, "err", err)
		return raiseEvery, nil
	}
	return raiseEvery, err
}

// raise raises low for the instances whose queues have moved, in steps of about a second: note the highest number given
// out, then who is writing; once those have all ended, nothing can appear at or below that number any more, and low can
// go up to the lowest message there is. The order of the three is what makes it right: whoever took a number up to hi
// had the table's lock before, and is seen writing until it has ended.
func (r *raiser) raise(ctx context.Context, c *session.Conn) error {
	var noted, idle []*instance
	for _, in := range r.run.instances {
		in.mu.Lock()
		if in.start.raising {
			noted = append(noted, in)
		} else if in.start.active {
			idle = append(idle, in)
		}
		in.mu.Unlock()
	}
	if err := r.finishRaise(ctx, c, noted); err != nil {
		return fmt.Errorf("raise where fetches start: %w", err)
	}
	if err := r.beginRaise(ctx, c, idle); err != nil {
		return fmt.Errorf("raise where fetches start: %w", err)
	}
	return nil
}

func (r *raiser) beginRaise(ctx context.Context, c *session.Conn, ins []*instance) error {
	st := r.run.client.store
	if len(ins) == 0 {
		return nil
	}
	queues := namesOf(ins)
	sequences, err := st.Low.Sequences(ctx, c, queues)
	if err != nil {
		return err
	}
	tables, err := st.Tables.Ready(ctx, c, queues)
	if err != nil {
		return err
	}
	for i := len(ins) - 1; i >= 0; i-- {
		if sequences[i] == "" { // dropped
			ins, queues = slices.Delete(ins, i, i+1), slices.Delete(queues, i, i+1)
			sequences, tables = slices.Delete(sequences, i, i+1), slices.Delete(tables, i, i+1)
		}
	}
	if len(ins) == 0 {
		return nil
	}
	epochs := epochsOf(ins)
	var his []int64
	var writers []store.Writer
	b := &pgx.Batch{}
	st.Low.LastValues(b, sequences, &his)
	st.Tables.Writers(b, tables, &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	var setBack []string
	for i, in := range ins {
		in.mu.Lock()
		switch s := &in.start; {
		case s.epoch != epochs[i]:
		case his[i] < s.low:
			s.reset()
			setBack = append(setBack, queues[i])
		default:
			s.raising, s.active, s.hi, s.writers = true, false, his[i], store.TransactionsOn(writers, tables[i])
		}
		in.mu.Unlock()
	}
	for _, queue := range setBack { // what is kept is to be forgotten before the sequence has passed it
		if _, err := st.Low.Read(ctx, c, queue); err != nil {
			return err
		}
	}
	return nil
}

func (r *raiser) finishRaise(ctx context.Context, c *session.Conn, ins []*instance) error {
	if len(ins) == 0 {
		return nil
	}
	st := r.run.client.store
	epochs := epochsOf(ins)
	tables, err := st.Tables.Ready(ctx, c, namesOf(ins))
	if err != nil {
		return err
	}
	var writers []store.Writer
	b := &pgx.Batch{}
	st.Tables.Writers(b, tables, &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	var ready []*instance
	var queues []string
	var lows, firsts []int64
	for i, in := range ins {
		in.mu.Lock()
		for tx := range in.start.writers {
			if !store.TransactionsOn(writers, tables[i])[tx] {
				delete(in.start.writers, tx)
			}
		}
		if tables[i] == 0 {
			in.start.reset()
		} else if in.start.epoch == epochs[i] && len(in.start.writers) == 0 {
			ready, queues, lows = append(ready, in), append(queues, in.endpoint.Name), append(lows, in.start.low)
		}
		in.mu.Unlock()
	}
	if len(ready) == 0 {
		return nil
	}
	epochs = epochsOf(ready)
	b = &pgx.Batch{}
	st.Low.FirstAfter(b, queues, lows, &firsts)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	for i, in := range ready {
		in.mu.Lock()
		if s := &in.start; s.epoch == epochs[i] {
			s.raising = false
			s.low = s.hi
			if firsts[i] > 0 && firsts[i] <= s.hi {
				s.low = firsts[i] - 1
			}
		}
		in.mu.Unlock()
	}
	return r.keepLow(ctx, c, ready)
}

// keepLow writes what was found to the queues' rows, for processes that start.
func (r *raiser) keepLow(ctx context.Context, c *session.Conn, ins []*instance) error {
	if r.mayNotKeep || time.Since(r.kept) < keepEvery {
		return nil
	}
	var queues []string
	var lows []int64
	for _, in := range ins {
		in.mu.Lock()
		if s := &in.start; s.low >= s.kept+keepApart {
			s.kept = s.low
			queues, lows = append(queues, in.endpoint.Name), append(lows, s.low)
		}
		in.mu.Unlock()
	}
	if len(queues) == 0 {
		return nil
	}
	r.kept = time.Now()
	err := r.run.client.store.Low.Keep(ctx, c, queues, lows)
	if session.State(err) == session.InsufficientPrivilege { // it is an optimisation
		r.mayNotKeep, err = true, nil
	}
	return err
}

// keepLast is keepLow at the end of the process, for the one that starts in its place.
func (r *raiser) keepLast(c *session.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r.kept = time.Time{}
	if err := r.keepLow(ctx, c, r.run.instances); err != nil {
		r.run.client.log.Warn("sqlq: cannot keep where messages begin; the next process looks for it", "err", err)
	}
}

// raises says whether any instance has something to raise.
func (r *runner) raises() bool {
	for _, in := range r.instances {
		in.mu.Lock()
		wants := in.start.active || in.start.raising
		in.mu.Unlock()
		if wants {
			return true
		}
	}
	return false
}

func namesOf(ins []*instance) []string {
	names := make([]string, len(ins))
	for i, in := range ins {
		names[i] = in.endpoint.Name
	}
	return names
}

func epochsOf(ins []*instance) []int {
	epochs := make([]int, len(ins))
	for i, in := range ins {
		in.mu.Lock()
		epochs[i] = in.start.epoch
		in.mu.Unlock()
	}
	return epochs
}
