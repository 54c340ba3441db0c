package sqlq

import (
	"sync"
	"sync/atomic"
	"time"
)

// schedule shares the few receive connections of a process among its instances: receivers ask it what to do next, and
// it goes round the instances that want something.
//
// A HandleTx handler has its connection for as long as it runs. So that slow ones do not keep everybody else waiting, an
// instance whose HandleTx handlers are slow leaves connections to others that have such handlers and none of them at work
// (reserve), and a spare receiver does what needs no HandleTx handler when all others have been taken by them for spareAfter.
//
// mu guards turn, idle, holding, draining and closed; instances and receivers are unchanged from the first receiver on.
type schedule struct {
	mu        ranked[ofSchedule]
	changed   *sync.Cond
	instances []*instance
	turn      int
	idle      int         // receivers that wait
	holding   []*receiver // those that hold a batch, the longest first
	draining  bool        // no more fetches
	closed    bool

	receivers int           // without the spare one
	tx        atomic.Int32  // receivers that run HandleTx handlers, or fetch for them
	txIdle    atomic.Int32  // instances that have HandleTx handlers and no receiver that runs them
	spare     chan struct{} // filled when an instance may want something and no receiver waits; nil: there is no spare one
	ended     chan struct{} // closed with the schedule
}

// spareAfter is how long HandleTx handlers may have all receivers before the spare one steps in.
const spareAfter = 20 * time.Millisecond

func newSchedule() *schedule {
	s := &schedule{ended: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// reserve is how many receivers an instance with slow HandleTx handlers leaves to others: one for each that has such handlers
// and none at work, up to half of them.
func (s *schedule) reserve() int { return min(int(s.txIdle.Load()), s.receivers/2) }

// next waits for work; false when the schedule is closed.
func (s *schedule) next() (work, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return work{}, false
		}
		if w, ok := s.pick(false); ok {
			if s.idle > 0 {
				s.changed.Signal() // there may be more
			}
			return w, true
		}
		s.idle++
		s.changed.Wait()
		s.idle--
	}
}

// nextSpare is next for the spare receiver.
func (s *schedule) nextSpare() (work, bool) {
	for {
		select {
		case <-s.spare:
		case <-s.ended:
			return work{}, false
		}
		for wanted := true; wanted; {
			select {
			case <-time.After(spareAfter):
			case <-s.ended:
				return work{}, false
			}
			if w, ok := s.poll(true); ok {
				return w, true
			}
			s.mu.Lock()
			wanted = s.idle == 0 && s.occupied()
			s.mu.Unlock()
		}
	}
}

// occupied reports whether HandleTx handlers have all receivers.
func (s *schedule) occupied() bool { return int(s.tx.Load()) >= s.receivers }

// poll returns work if there is some now: for the spare receiver, if the others cannot do it.
func (s *schedule) poll(spare bool) (work, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if spare && !s.occupied() {
		return work{}, false
	}
	return s.pick(spare)
}

func (s *schedule) pick(spare bool) (work, bool) {
	now := time.Now()
	for i := range s.instances {
		at := (s.turn + i) % len(s.instances)
		if w, ok := s.instances[at].wants(now, s.draining, spare); ok {
			s.turn = at + 1
			return w, true
		}
	}
	return work{}, false
}

// kick says that an instance may want something. When every receiver holds a batch, the one that has held its the
// longest is asked to settle: the slow messages in it are leased and slots that stand idle get work.
func (s *schedule) kick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle > 0 {
		s.changed.Signal()
		return
	}
	if len(s.holding) > 0 {
		nudge(s.holding[0].cut)
	}
	if s.spare != nil {
		nudge(s.spare)
	}
}

// signal wakes a receiver that waits for work, if there is one.
func (s *schedule) signal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle > 0 {
		s.changed.Signal()
	}
}

func (s *schedule) hold(r *receiver) {
	s.mu.Lock()
	s.holding = append(s.holding, r)
	s.mu.Unlock()
}

func (s *schedule) unhold(r *receiver) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.holding {
		if h == r {
			s.holding = append(s.holding[:i], s.holding[i+1:]...)
			return
		}
	}
}

// drain stops fetching. Batches in hand are cut at once; leased messages are settled as their handlers finish.
func (s *schedule) drain() {
	s.mu.Lock()
	s.draining = true
	for _, r := range s.holding {
		nudge(r.cut)
	}
	s.mu.Unlock()
	s.changed.Broadcast()
}

func (s *schedule) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// close ends the receivers once they have settled what they hold.
func (s *schedule) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	close(s.ended)
	s.changed.Broadcast()
}

// nudge fills a channel of one place, on which somebody waits, unless it is full already.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
