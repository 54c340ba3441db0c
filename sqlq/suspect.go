package sqlq

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// apart keeps messages that may have killed a process apart from all others of their instance.
type apart struct {
	client  *Client
	ctx     context.Context // of the handlers
	hand    *hand
	life    *life
	turnOf  chan struct{} // filled while such a message is in hand, of the whole process
	refused func(*delivery, error) time.Duration

	alone sync.RWMutex // held for reading while handlers run; for writing by such a message, from before its handler until it is settled
}

// begin keeps a message that may have killed a process apart from all others of the instance, and from others of its kind in the
// whole process, until it is settled, so that another death points at it alone. The attempt
// is counted beforehand, because nobody may be left to do it. It waits until the message may run, and returns false when
// it may not; else end must follow. A receiver settles what is finished while it waits, by meanwhile: the message that
// it waits for may be among it, and all other receivers may be waiting too.
func (a *apart) begin(d *delivery, meanwhile func()) bool {
	if !d.crashes {
		a.alone.RLock()
		return true
	}
	if !a.turn(d, meanwhile) {
		d.outcome = outcome{verdict: giveBack}
		return false
	}
	a.alone.Lock()
	d.alone.Store(true)
	ctx, cancel := context.WithTimeout(a.ctx, 30*time.Second)
	defer cancel()
	var mine bool
	err := session.OnPool(ctx, a.client.pool, func(db store.DBTX) (err error) {
		if mine, err = a.client.store.Leases.BeginAlone(ctx, db, d.leasedBy, d.lease); err == nil && mine {
			err = a.readBody(ctx, db, d)
		}
		return err
	})
	if err == nil && mine {
		return true
	}
	if d.alone.Swap(false) {
		a.alone.Unlock()
	}
	if err == nil || session.Lost(err) || session.Troubled(err) {
		d.outcome = outcome{verdict: giveBack}
	} else { // it would come back at once
		d.wait(a.refused(d, err), refusalOf(err))
	}
	return false
}

// turn waits until no other message is in hand that may have killed a process; false when handlers are to end.
func (a *apart) turn(d *delivery, meanwhile func()) bool {
	var again <-chan time.Time
	if meanwhile != nil {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		again = tick.C
	}
	for {
		select {
		case a.turnOf <- struct{}{}:
			mine := a.hand.goApart(d)
			if !mine {
				<-a.turnOf
			}
			return mine
		case <-a.ctx.Done():
			return false
		case <-again:
			meanwhile()
		}
	}
}

// end follows when a handler has returned. One that may have killed a process keeps others waiting until it is settled, as long as that
// does not take long: else one of them could kill the process first, and its death would be blamed on this one.
func (a *apart) end(d *delivery) {
	switch {
	case !d.crashes:
		a.alone.RUnlock()
	case d.alone.Load():
		a.life.after(aloneAtMost, func() { a.letOthersRun(d) })
	}
}

// letOthersRun ends that a message is alone although it has not been settled. What begin counted is taken back: what kills the process
// from now on is something else. If that fails the count stays, which costs the message an attempt at worst.
func (a *apart) letOthersRun(d *delivery) {
	if !d.alone.Swap(false) {
		return
	}
	defer a.alone.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), endAloneWithin)
	defer cancel()
	err := session.OnPool(ctx, a.client.pool, func(db store.DBTX) error {
		return a.client.store.Leases.EndAlone(ctx, db, d.leasedBy, d.lease, int(d.before))
	})
	if err != nil {
		a.client.log.DebugContext(ctx, "sqlq: cannot note that a message under suspicion has not killed the process", "endpoint", a.hand.endpoint.Name, "message", d.stored.id, "err", loggedError(err))
	}
}

const (
	// aloneAtMost is how long a message under suspicion keeps others waiting once its handler has returned. Whatever the handler may
	// have left running has killed the process by then, if it does.
	aloneAtMost = time.Second
	// endAloneWithin limits how long the database may take to note the end of that.
	endAloneWithin = 5 * time.Second
)

// suspicion is what an instance knows of messages that may have killed a process. What the dead one had held is free again,
// and has a seq up to the last one that was given out when its death became known: so far the instance receives by lease,
// and what comes behind as ever. It ends as soon as no message is left there. What the dead one had leased comes back with
// a mark, and wherever it is found it is left to a fetch by lease.
//
// mu guards what is below it; it is one of the last in the order of locks.
type suspicion struct {
	life   *life
	ranOut func() // has messages received as ever that are still there: fetches have gone past them

	mu      ranked[ofPart]
	until   time.Time // zero: there is none
	known   bool      // upTo is; until then nothing is received but by lease
	upTo    int64     // the last seq under suspicion
	looking bool      // a fetch by lease is under way
	rest    bool      // the last one left messages, or there was none yet
	next    time.Time // the next one may begin
	epoch   int       // counts the reasons, so that the end of one does not end another
	timed   bool      // a timer runs for its end
}

const (
	// suspicionTime is how long suspicion lasts at most.
	suspicionTime = time.Minute
	// suspectEvery is the pause between fetches by lease that found nothing: others may hold what is under suspicion.
	suspectEvery = 100 * time.Millisecond
)

// all has the instance receive by lease what there is, because a process of its endpoint died with messages in hand.
func (s *suspicion) all() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.begin(now)
	s.known = false
	s.time(now)
}

// upToSeq has the instance receive messages up to a seq by lease: there are marked ones.
func (s *suspicion) upToSeq(seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.holds(now) {
		s.known, s.upTo = true, 0
	}
	s.begin(now)
	s.upTo = max(s.upTo, seq)
	s.time(now)
}

func (s *suspicion) begin(now time.Time) {
	s.until, s.next, s.rest = now.Add(suspicionTime), now, true
	s.epoch++
}

func (s *suspicion) holds(now time.Time) bool { return now.Before(s.until) }

// time sees to the end of a suspicion whose time runs out.
func (s *suspicion) time(now time.Time) {
	if !s.timed {
		s.timed = true
		s.life.after(s.until.Sub(now), s.timeIsUp)
	}
}

func (s *suspicion) timeIsUp() {
	s.mu.Lock()
	now := time.Now()
	s.timed = false
	again, over := s.holds(now), !s.until.IsZero()
	if again {
		s.time(now)
	} else {
		s.until = time.Time{}
	}
	s.mu.Unlock()
	if !again && over {
		s.ranOut()
	}
}

// suspected is a suspicion as it stands at a moment.
type suspected struct {
	holds   bool
	mayLook bool // a fetch by lease may begin
	rests   bool // and may bring something
	known   bool
	upTo    int64
	epoch   int
}

// at returns how it stands.
func (s *suspicion) at(now time.Time) suspected {
	s.mu.Lock()
	defer s.mu.Unlock()
	holds := s.holds(now)
	return suspected{holds: holds, mayLook: holds && !s.looking && !now.Before(s.next), rests: holds && s.rest, known: s.known, upTo: s.upTo, epoch: s.epoch}
}

// look notes that a fetch by lease begins, lookEnds that it has ended.
func (s *suspicion) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = true
}

func (s *suspicion) lookEnds() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looking = false
}

// fetched takes in whether a fetch by lease has left messages behind.
func (s *suspicion) fetched(epoch int, rest bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != epoch {
		return
	}
	if s.rest = rest; !rest {
		s.next = time.Now().Add(suspectEvery)
	}
}

// lookAgain has the next fetch by lease begin at once.
func (s *suspicion) lookAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest, s.next = true, time.Time{}
}

// goesUpTo notes how far the suspicion goes.
func (s *suspicion) goesUpTo(epoch int, seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		s.known, s.upTo = true, max(s.upTo, seq)
	}
}

// end ends a suspicion, if it is still that one.
func (s *suspicion) end(epoch int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch == epoch {
		s.until = time.Time{}
	}
}

// learnSuspects reads how far suspicion goes, before the first fetch by lease. A role that may not read it suspects all
// messages.
func (l *link) learnSuspects(ctx context.Context, w *work) error {
	if w.upTo > 0 {
		return nil
	}
	last, err := l.run.client.store.Ready.LastGiven(ctx, l.conn, w.in.endpoint.Name)
	if session.State(err) == session.InsufficientPrivilege {
		last, err = math.MaxInt64, nil
	}
	if err != nil {
		return err
	}
	w.upTo = max(last, 1)
	w.in.suspicion.goesUpTo(w.doubt, last)
	return nil
}

// clearSuspicion ends the suspicion when no message is left there, which a fetch by lease that brought nothing makes likely.
func (l *link) clearSuspicion(ctx context.Context, w work) {
	left, err := l.run.client.store.Ready.Any(ctx, l.conn, w.in.endpoint.Name, w.after, w.upTo)
	if err != nil {
		l.lost(err)
		return
	}
	if !left {
		w.in.suspicion.end(w.doubt)
	}
}
