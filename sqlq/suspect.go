package sqlq

import (
	"context"
	"time"

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
		in.giveUp(d)
		return false
	}
	in.alone.Lock()
	ctx, cancel := context.WithTimeout(in.ctx, 30*time.Second)
	defer cancel()
	var mine bool
	err := in.client.onPool(ctx, func(db store.DBTX) (err error) {
		if mine, err = in.client.store.BeginAlone(ctx, db, d.leasedBy, d.lease); err == nil && mine {
			err = in.readBody(ctx, db, d)
		}
		return err
	})
	if err != nil || !mine {
		in.alone.Unlock()
		in.giveUp(d)
		return false
	}
	return true
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
			d.apart = !d.giveUp
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

// settled lets the next message run that may have killed a process, if this was one.
func (in *instance) settled(d *delivery) {
	if d.apart {
		d.apart = false
		<-in.run.suspect
	}
}

// suspect has the instance receive by lease for a while, because a process of its endpoint died with messages in hand.
func (in *instance) suspect() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.suspectUntil = time.Now().Add(suspicion)
}

// suspicious says whether a process of the endpoint died lately.
func (in *instance) suspicious() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return time.Now().Before(in.suspectUntil)
}
