package sqlq

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// crashMemory is how old a crash may be to make a starting instance suspicious.
	crashMemory = time.Hour
)

// keeper owns the connection of a process that keeps house: heartbeats, and, in the one process that leads, moving due
// messages, giving back what crashed instances had, and the upkeep. Leading is a session lock, so that a dead leader is followed
// at the next heartbeat of another (but see tryLead), and one that ends in order at once, because it says so; that a frozen one
// gets nothing done is noticed by the others, who then do it once.
type keeper struct {
	run       *runner
	conn      *conn
	connected time.Time
	process   atomic.Int32 // the number of the lock that shows that the process lives; 0: there is none
	alive     bool         // the connection holds that lock
	tried     time.Time    // when it last tried to take that or to lead, between heartbeats
	byAge     bool         // it leads as the oldest instance, because a stranger has the leader's lock
	strangers strangers    // with the leader's lock
	claimants strangers    // with the lock that shows that the process lives

	mu      sync.Mutex
	leads   bool
	vacant  bool // whoever led has said that it does no more
	kick    chan struct{}
	crashes map[string]time.Time // the latest known of each endpoint
	mover   mover
	raised  time.Time
	kept    time.Time // when a low was last written
	upkeep  upkeep

	unrecovered bool             // there is more to give back of what ended instances had leased
	smallRounds map[string]round // of queues in which giving back took too long

	// The role lacks a privilege for what can be done without.
	mayNotRaise, mayNotKeep bool
	mayNotCount             atomic.Bool
}

func newKeeper(r *runner) *keeper {
	return &keeper{run: r, strangers: strangers{log: r.client.log}, claimants: strangers{log: r.client.log}, kick: make(chan struct{}, 1),
		crashes: map[string]time.Time{}, mover: newMover(), upkeep: newUpkeep(), smallRounds: map[string]round{}}
}

// start registers the instances and gives back what dead ones had, before the first message is fetched.
func (k *keeper) start(ctx context.Context) error {
	if err := k.connect(ctx); err != nil {
		return err
	}
	if err := k.run.client.checkListenURL(ctx, k.conn); err != nil {
		return err
	}
	for _, in := range k.run.instances {
		if err := k.register(ctx, in); err != nil {
			return err
		}
	}
	if err := k.recover(ctx); err != nil {
		return err
	}
	doubtful, err := k.run.client.store.Doubtful(ctx, k.conn, k.run.numbers())
	if err != nil {
		return fmt.Errorf("look for crashed instances: %w", err)
	}
	for _, in := range k.run.instances {
		if slices.Contains(doubtful, in.endpoint.Name) {
			in.suspect()
		}
	}
	return k.beat(ctx)
}

// keep does the housekeeping until stop ends. What is under way then is finished, unless ctx ends: cut off, it might leave the
// record of an instance that nobody ends, and the connection, whose locks show that the instances live.
func (k *keeper) keep(ctx, stop context.Context) {
	var retry backoff
	every := min(k.run.client.config.LeaseTime/3, 5*time.Second)
	beat := time.Now().Add(every)
	next := time.Duration(0)
	for {
		pause := max(0, min(time.Until(beat), next))
		if !k.pause(stop, pause) {
			return
		}
		// Bounded, so that no piece of work can keep the heartbeat waiting until this process is thought dead.
		bounded, cancel := context.WithTimeout(ctx, k.run.client.config.LeaseTime/2)
		err := k.connect(bounded)
		if err == nil && !time.Now().Before(beat) {
			beat = time.Now().Add(every)
			err = k.beat(bounded)
		}
		if err == nil {
			err = k.tryAgain(bounded)
		}
		if err == nil {
			next, err = k.moveDue(bounded)
			if k.lacks() {
				next = min(next, lackedEvery)
			}
		}
		if err == nil && k.unrecovered {
			next, err = 0, k.giveBack(bounded)
		}
		if err == nil && !k.mayNotRaise && k.run.raises() {
			next = min(next, raiseEvery)
			err = k.raiseInTime(bounded)
		}
		if err == nil {
			err = k.keepUp(bounded)
			next = min(next, k.upkeep.pause())
		}
		cancel()
		if err == nil {
			retry.reset()
			k.run.outage.ends(forKeeping)
			continue
		}
		k.disconnect()
		if stop.Err() != nil {
			return
		}
		beat = time.Now() // at once: the lead went with the connection
		k.run.restart()
		if k.run.outage.begins(forKeeping, err) {
			k.run.outage.wait(stop, &retry)
			continue
		}
		k.run.client.log.Warn("sqlq: housekeeping failed, trying again", "err", err)
		retry.wait(stop)
	}
}

// pause waits for d or a kick; false when ctx ended.
func (k *keeper) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-k.kick:
	}
	return ctx.Err() == nil
}

// lackedEvery is the pause between attempts to get what a connection lacks, where nobody tells when it is to be had.
const lackedEvery = time.Second

// lacks reports whether there is something to try for between heartbeats: the lock that shows that the process lives, or the
// lead, where the listener does not hear when that is free.
func (k *keeper) lacks() bool {
	return k.lacksAlive() || len(k.claimants.told) > 0 || !k.leadsNow() && !k.run.listener.hears()
}

func (k *keeper) lacksAlive() bool { return k.process.Load() != 0 && !k.alive && !k.conn.pooled }

// tryAgain tries for what the connection lacks.
func (k *keeper) tryAgain(ctx context.Context) error {
	k.mu.Lock()
	vacant := k.vacant
	k.vacant = false
	k.mu.Unlock()
	lacks := k.lacks() && time.Since(k.tried) >= lackedEvery
	if !vacant && !lacks {
		return nil
	}
	k.tried = time.Now()
	if err := k.holdAlive(ctx); err != nil {
		return err
	}
	if err := k.tellOfClaimants(ctx); err != nil {
		return err
	}
	if k.leadsNow() {
		return nil
	}
	return k.tryLead(ctx, false)
}

// tellOfClaimants says who has the lock that shows that this process lives, if it does not.
func (k *keeper) tellOfClaimants(ctx context.Context) error {
	if !k.lacksAlive() && len(k.claimants.told) == 0 || time.Since(k.claimants.looked) < strangersEvery {
		return nil
	}
	k.claimants.looked = time.Now()
	found, err := k.run.client.store.Strangers(ctx, k.conn)
	if err != nil {
		return fmt.Errorf("look for who holds locks: %w", err)
	}
	k.claimants.tell(found, func(f store.Stranger) string {
		if f.Lock == store.LockAlive && f.Number == int64(k.process.Load()) && k.lacksAlive() {
			return "this process cannot show by it that it lives, and may be thought dead when that session lets go"
		}
		return ""
	})
	return nil
}

// end hands over the lead, records that the instances ended in order, and wakes others for the messages that were given back.
// Only then does it let go of the lock that shows that they live. It waits until whom this process woke has been told.
func (k *keeper) end() {
	defer k.disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	k.handOver(ctx)
	st := k.run.client.store
	err := k.onOwn(ctx, func(db store.DBTX) error {
		if err := k.drained(ctx, db); err != nil {
			return err
		}
		return st.WakeQueues(ctx, db, k.run.endpoints())
	})
	if err != nil {
		k.run.client.log.Warn("sqlq: cannot record the end of this instance; others will take it for crashed", "err", err)
	}
	k.keepLast()
	k.run.client.wakes.flush(ctx)
}

// onOwn runs statements on the keeper's connection, and where it is lost on the pool's: the program may have those busy.
func (k *keeper) onOwn(ctx context.Context, run func(db store.DBTX) error) error {
	if k.conn != nil && !k.conn.IsClosed() {
		if err := run(k.conn); err == nil || !connectionLost(err) || ctx.Err() != nil {
			return err
		}
	}
	return k.run.client.onPool(ctx, run)
}

func (k *keeper) connect(ctx context.Context) (err error) {
	if k.conn != nil && !k.conn.IsClosed() {
		return nil
	}
	k.lead(false)
	k.alive, k.byAge = false, false
	if k.conn, err = k.run.client.connect(ctx, forKeeping); err != nil {
		return err
	}
	k.connected = time.Now()
	return k.holdAlive(ctx)
}

// holdAlive tries to take the lock that shows that the process lives, if it has one and the connection does not hold it.
func (k *keeper) holdAlive(ctx context.Context) (err error) {
	process := k.process.Load()
	if process == 0 || k.alive || k.conn.pooled {
		return nil
	}
	if k.alive, err = k.run.client.store.TryAlive(ctx, k.conn, process); err != nil {
		return fmt.Errorf("show that the process lives: %w", err)
	}
	return nil
}

func (k *keeper) disconnect() {
	if k.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	k.conn.Close(ctx)
	k.conn = nil
}
