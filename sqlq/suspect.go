package sqlq

import (
	"context"
	"math"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// apart keeps a message that may have killed a process apart from all others of the instance while its handler runs, and
// from others of its kind in the whole process until it is settled, so that another death points at it alone. The attempt
// is counted beforehand, because nobody may be left to do it. It waits until the message may run, and returns false when
// it may not; else rejoin must follow. A receiver settles what is finished while it waits, by meanwhile: the message that
// it waits for may be among it, and all other receivers may be waiting too.
func (in *instance) apart(d *delivery, meanwhile func()) bool {
	if !d.crashes {
		in.alone.RLock()
		return true
	}
	if !in.turn(d, meanwhile) {
		d.outcome = outcome{verdict: giveBack}
		return false
	}
	in.alone.Lock()
	ctx, cancel := context.WithTimeout(in.ctx, 30*time.Second)
	defer cancel()
	var mine bool
	err := session.OnPool(ctx, in.client.pool, func(db store.DBTX) (err error) {
		if mine, err = in.client.store.Leases.BeginAlone(ctx, db, d.leasedBy, d.lease); err == nil && mine {
			err = in.readBody(ctx, db, d)
		}
		return err
	})
	if err == nil && mine {
		return true
	}
	in.alone.Unlock()
	if err == nil || session.Lost(err) || session.Troubled(err) {
		d.outcome = outcome{verdict: giveBack}
	} else { // it would come back at once
		d.wait(in.refusedAgain(d, err), refusalOf(err))
	}
	return false
}

// turn waits until no other message is in hand that may have killed a process; false when handlers are to end.
func (in *instance) turn(d *delivery, meanwhile func()) bool {
	var again <-chan time.Time
	if meanwhile != nil {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		again = tick.C
	}
	for {
		select {
		case in.run.suspect <- struct{}{}:
			in.mu.Lock()
			d.apart = d.state == running
			in.mu.Unlock()
			if !d.apart { // the drain has given it back, so nobody would end its turn
				<-in.run.suspect
			}
			return d.apart
		case <-in.ctx.Done():
			return false
		case <-again:
			meanwhile()
		}
	}
}

// rejoin ends what apart began.
func (in *instance) rejoin(d *delivery) {
	if d.crashes {
		in.alone.Unlock()
	} else {
		in.alone.RUnlock()
	}
}

// suspicion is what an instance knows of messages that may have killed a process. What the dead one had held is free again,
// and has a seq up to the last one that was given out when its death became known: so far the instance receives by lease,
// and what comes behind as ever. It ends as soon as no message is left there. What the dead one had leased comes back with
// a mark, and wherever it is found it is left to a fetch by lease. The instance's mutex guards it.
type suspicion struct {
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

// suspect has the instance receive by lease what there is, because a process of its endpoint died with messages in hand.
func (in *instance) suspect() {
	in.mu.Lock()
	defer in.mu.Unlock()
	now := time.Now()
	in.suspicion.begin(now)
	in.suspicion.known = false
	in.timeSuspicion(now)
}

// timeSuspicion sees to the end of a suspicion whose time runs out.
func (in *instance) timeSuspicion(now time.Time) {
	if s := &in.suspicion; !s.timed {
		s.timed = true
		in.run.life.after(s.until.Sub(now), in.suspicionRanOut)
	}
}

// suspicionRanOut has messages received as ever that are still there: fetches have gone past them.
func (in *instance) suspicionRanOut() {
	in.mu.Lock()
	now, s := time.Now(), &in.suspicion
	s.timed = false
	again, over := s.holds(now), !s.until.IsZero()
	if again {
		in.timeSuspicion(now)
	} else {
		s.until = time.Time{}
	}
	in.mu.Unlock()
	if !again && over {
		in.lookFromLow()
	}
}

// suspectUpTo has the instance receive messages up to a seq by lease: there are marked ones.
func (in *instance) suspectUpTo(seq int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s, now := &in.suspicion, time.Now()
	if !s.holds(now) {
		s.known, s.upTo = true, 0
	}
	s.begin(now)
	s.upTo = max(s.upTo, seq)
	in.timeSuspicion(now)
}

func (s *suspicion) begin(now time.Time) {
	s.until, s.next, s.rest = now.Add(suspicionTime), now, true
	s.epoch++
}

func (s *suspicion) holds(now time.Time) bool { return now.Before(s.until) }

// suspicious says whether some messages are under suspicion.
func (in *instance) suspicious() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.suspicion.holds(time.Now())
}

// learnSuspects reads how far suspicion goes, before the first fetch by lease. A role that may not read it suspects all
// messages.
func (r *receiver) learnSuspects(ctx context.Context, w *work) error {
	in := w.in
	if w.upTo > 0 {
		return nil
	}
	last, err := r.run.client.store.Ready.LastGiven(ctx, r.conn, in.endpoint.Name)
	if session.State(err) == session.InsufficientPrivilege {
		last, err = math.MaxInt64, nil
	}
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	w.upTo = max(last, 1)
	if s := &in.suspicion; s.epoch == w.doubt {
		s.known, s.upTo = true, max(s.upTo, last)
	}
	return nil
}

// fetchedSuspects takes in how many messages a fetch by lease brought, and whether it left some for their size.
func (in *instance) fetchedSuspects(w work, got int, rest bool) {
	if got > 0 {
		in.fetches++
		in.start.active = true
	}
	if s := &in.suspicion; s.epoch == w.doubt {
		if s.rest = got >= w.n || rest; !s.rest {
			s.next = time.Now().Add(suspectEvery)
		}
	}
}

// clearSuspicion ends the suspicion when no message is left there, which a fetch by lease that brought nothing makes likely.
func (r *receiver) clearSuspicion(ctx context.Context, w work) {
	in := w.in
	left, err := r.run.client.store.Ready.Any(ctx, r.conn, in.endpoint.Name, w.after, w.upTo)
	if err != nil {
		r.lost(err)
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !left && in.suspicion.epoch == w.doubt {
		in.suspicion.until = time.Time{}
	}
}
