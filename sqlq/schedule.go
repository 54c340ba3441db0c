package sqlq

import (
	"sync"
	"time"
)

// schedule shares the few receive connections of a process among its instances: receivers ask it what to do next, and
// it goes round the instances that want something.
type schedule struct {
	mu        sync.Mutex
	changed   *sync.Cond
	instances []*instance
	turn      int
	idle      int         // receivers that wait
	holding   []*receiver // those that hold a batch, the longest first
	draining  bool        // no more fetches
	closed    bool
}

func newSchedule() *schedule {
	s := &schedule{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// next waits for work; false when the schedule is closed.
func (s *schedule) next() (work, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return work{}, false
		}
		if w, ok := s.pick(); ok {
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

// poll returns work if there is some now.
func (s *schedule) poll() (work, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pick()
}

func (s *schedule) pick() (work, bool) {
	now := time.Now()
	for i := range s.instances {
		at := (s.turn + i) % len(s.instances)
		if w, ok := s.instances[at].wants(now, s.draining); ok {
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
	s.changed.Broadcast()
}

// nudge fills a channel of one place, on which somebody waits, unless it is full already.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
