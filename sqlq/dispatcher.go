package sqlq

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// dispatcher shares the few receive connections of a process among its instances: receivers ask it what to do next, and
// it goes round the instances that want something.
//
// A HandleTx handler has its connection for as long as it runs. So that slow ones do not keep everybody else waiting, an
// instance whose HandleTx handlers are slow leaves connections to others that have such handlers and none of them at work
// (reserve), and a spare receiver does what will not keep it (maySpare) when all others have been taken by them for spareAfter.
//
// mu guards turn, idle, holding, closed, receivers, tookAll and spare.
type dispatcher struct {
	mu        ranked[ofDispatcher]
	changed   *sync.Cond
	instances *roster[instance]
	turn      int
	idle      int         // receivers that wait
	holding   []*receiver // those that hold a batch, the longest first
	closed    bool
	receivers int       // without the spare one
	tookAll   time.Time // when HandleTx handlers last took the last of them

	tx     atomic.Int32  // receivers that run HandleTx handlers, or fetch for them
	txIdle atomic.Int32  // instances that have HandleTx handlers and no receiver that runs them
	spare  chan struct{} // filled when an instance may want something and no receiver waits; nil: there is no spare one
	ended  chan struct{} // closed with the dispatcher
}

// spareAfter is how long HandleTx handlers may have all receivers before the spare one steps in.
const spareAfter = 20 * time.Millisecond

func newDispatcher(instances *roster[instance], receivers int) *dispatcher {
	d := &dispatcher{instances: instances, receivers: receivers, ended: make(chan struct{})}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// reserve is how many receivers an instance with slow HandleTx handlers leaves to others: one for each that has such handlers
// and none at work, up to half of them.
func (d *dispatcher) reserve() int { return min(int(d.txIdle.Load()), d.receivers/2) }

// next waits for work; false when the dispatcher is closed.
func (d *dispatcher) next() (work, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.closed {
			return work{}, false
		}
		if w, ok := d.pick(false); ok {
			if d.idle > 0 {
				d.changed.Signal() // there may be more
			}
			return w, true
		}
		d.idle++
		d.changed.Wait()
		d.idle--
	}
}

// nextSpare is next for the spare receiver.
func (d *dispatcher) nextSpare() (work, bool) {
	for {
		select {
		case <-d.spare:
		case <-d.ended:
			return work{}, false
		}
		for wait, wanted := d.untilSpare(), true; wanted; wait = spareAfter {
			if !d.awaitSpare(wait) {
				return work{}, false
			}
			if w, ok := d.poll(true); ok {
				return w, true
			}
			d.mu.Lock()
			wanted = d.idle == 0 && d.occupied()
			d.mu.Unlock()
		}
	}
}

// awaitSpare waits for so long, or until the spare receiver is wanted again and need not wait; false when the dispatcher is closed.
func (d *dispatcher) awaitSpare(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-d.spare:
			if d.untilSpare() <= 0 {
				return true
			}
		case <-d.ended:
			return false
		}
	}
}

// untilSpare returns how long the spare receiver waits: not if HandleTx handlers have had all others for long enough.
func (d *dispatcher) untilSpare() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.occupied() {
		return spareAfter
	}
	return spareAfter - time.Since(d.tookAll)
}

// occupied reports whether HandleTx handlers have all receivers.
func (d *dispatcher) occupied() bool { return int(d.tx.Load()) >= d.receivers }

// maySpare reports whether the spare receiver may fetch for an instance: one without HandleTx handlers; and one with, if none of them
// has a connection and they are known to be quick, or nothing is known and nobody else is there who might want the spare one. The caller
// has the hand's mutex.
func (d *dispatcher) maySpare(in *instance) bool {
	switch mean := in.hand.pace.meanTx; {
	case !in.hasTx:
		return true
	case in.hand.busyTx > 0:
		return false
	case mean == 0:
		return !slices.ContainsFunc(d.instances.now(), func(other *instance) bool { return !other.hasTx })
	default:
		return mean <= batchTime/2
	}
}

// poll returns work if there is some now: for the spare receiver, if the others cannot do it.
func (d *dispatcher) poll(spare bool) (work, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if spare && !d.occupied() {
		return work{}, false
	}
	return d.pick(spare)
}

func (d *dispatcher) pick(spare bool) (work, bool) {
	now, all := time.Now(), d.instances.now()
	for i := range all {
		at := (d.turn + i) % len(all)
		if w, ok := all[at].wants(now, spare); ok {
			d.turn = at + 1
			return w, true
		}
	}
	return work{}, false
}

// kick says that an instance may want something. When every receiver holds a batch, the one that has held its the
// longest is asked to settle: the slow messages in it are leased and slots that stand idle get work.
func (d *dispatcher) kick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle > 0 {
		d.changed.Signal()
		return
	}
	if len(d.holding) > 0 {
		nudge(d.holding[0].cut)
	}
	if d.spare != nil {
		nudge(d.spare)
	}
}

// signal wakes a receiver that waits for work, if there is one.
func (d *dispatcher) signal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle > 0 {
		d.changed.Signal()
	}
}

func (d *dispatcher) hold(r *receiver) {
	d.mu.Lock()
	d.holding = append(d.holding, r)
	d.mu.Unlock()
}

func (d *dispatcher) unhold(r *receiver) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, h := range d.holding {
		if h == r {
			d.holding = append(d.holding[:i], d.holding[i+1:]...)
			return
		}
	}
}

// cut ends the holding of batches of an instance.
func (d *dispatcher) cut(in *instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.holding {
		if b := r.held.Load(); b != nil && b.in == in {
			nudge(r.cut)
		}
	}
}

// leftBehind notes that one receiver more, or less, than is wanted has a handler that does not end.
func (d *dispatcher) leftBehind(receivers int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.receivers += receivers
}

// addSpare takes a spare receiver in.
func (d *dispatcher) addSpare() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spare = make(chan struct{}, 1)
}

// close ends the receivers once they have settled what they hold.
func (d *dispatcher) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	close(d.ended)
	d.changed.Broadcast()
}

// nudge fills a channel of one place, on which somebody waits, unless it is full already.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
