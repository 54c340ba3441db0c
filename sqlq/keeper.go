package sqlq

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// suspicion is how long the instances of an endpoint receive by lease after one of them crashed.
	suspicion = time.Minute
	// crashMemory is how old a crash may be to make a starting instance suspicious.
	crashMemory = time.Hour
)

// keeper owns the connection of a process that keeps house: heartbeats, and, in the one process that leads, moving due
// messages, giving back what crashed instances had, and the upkeep. Leading is a session lock, so that a dead leader is followed
// at the next heartbeat of another (but see tryLead); that a frozen one gets nothing done is noticed by the others, who then do
// it once.
type keeper struct {
	run       *runner
	conn      *conn
	connected time.Time

	mu      sync.Mutex
	leads   bool
	kick    chan struct{}
	crashes map[string]time.Time // the latest known of each endpoint
	moved   time.Time            // due time of the last message moved
	looked  time.Time            // when the mover last looked from the start
	raised  time.Time
	kept    time.Time // when a low was last written
	upkeep  upkeep

	// The role lacks a privilege for what can be done without.
	mayNotRaise, mayNotKeep bool
	mayNotCount             atomic.Bool
}

func newKeeper(r *runner) *keeper {
	return &keeper{run: r, kick: make(chan struct{}, 1), crashes: map[string]time.Time{}, upkeep: newUpkeep()}
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
		if err := k.run.register(ctx, k.conn, in); err != nil {
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
			next, err = k.moveDue(bounded)
		}
		if err == nil && !k.mayNotRaise && k.run.raises() {
			next = min(next, raiseEvery)
			err = k.raiseInTime(bounded)
		}
		if err == nil {
			err = k.keepUp(bounded)
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

// tryLead makes this process the leader if nobody else is: with the session lock, or, without a session, as the oldest
// instance that lives, which is asked for at each heartbeat. Where some processes have sessions and others do not there
// may be two leaders; they do everything once all the same.
func (k *keeper) tryLead(ctx context.Context) (err error) {
	leads := k.leadsNow()
	switch st := k.run.client.store; {
	case k.conn.pooled:
		leads, err = st.Eldest(ctx, k.conn, k.run.numbers())
	case !leads:
		leads, err = st.TryLead(ctx, k.conn)
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leads = leads
	return nil
}

// recover marks instances that died and puts what they had leased back into the queues.
func (k *keeper) recover(ctx context.Context) error {
	st := k.run.client.store
	var dead []store.Dead
	var channels []string
	err := pgx.BeginTxFunc(ctx, k.conn, k.conn.keeping(), func(tx pgx.Tx) error {
		var err error
		if dead, err = st.MarkDead(ctx, tx, k.run.numbers(), time.Since(k.connected) < k.run.client.config.LeaseTime); err != nil {
			return err
		}
		recovered, err := st.Recover(ctx, tx)
		for _, r := range recovered {
			channels = append(channels, r.Channel)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("recover the messages of crashed instances: %w", err)
	}
	k.run.client.wake(channels...)
	if len(dead) == 0 {
		return nil
	}
	var freed []string
	var ids []int32
	for _, d := range dead {
		ids = append(ids, d.ID)
		k.run.client.log.Warn("sqlq: an instance crashed; its messages go to others", "endpoint", d.Endpoint, "host", d.Host, "pid", d.PID)
		freed = append(freed, d.Endpoint)
		for _, in := range k.run.instances {
			if in.endpoint.Name == d.Endpoint {
				in.suspect()
				in.wake()
			}
		}
	}
	if err := st.EndListeners(ctx, k.conn, string(forListening), ids); err != nil {
		return fmt.Errorf("end the listening of instances that are thought dead: %w", err)
	}
	if err := st.WakeQueues(ctx, k.conn, freed); err != nil {
		return fmt.Errorf("wake the queues of crashed instances: %w", err)
	}
	return nil
}

func (k *keeper) leadsNow() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.leads
}

// end records that the instances ended in order, and wakes others for the messages that were given back. Only then does it
// let go of the locks that show that they live.
func (k *keeper) end() {
	defer k.disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	st := k.run.client.store
	err := k.run.client.onPool(ctx, func(db store.DBTX) error {
		if err := k.drained(ctx, db); err != nil {
			return err
		}
		return st.WakeQueues(ctx, db, k.run.endpoints())
	})
	if err != nil {
		k.run.client.log.Warn("sqlq: cannot record the end of this instance; others will take it for crashed", "err", err)
	}
	k.keepLast()
}

func (k *keeper) connect(ctx context.Context) (err error) {
	if k.conn != nil && !k.conn.IsClosed() {
		return nil
	}
	k.mu.Lock()
	k.leads = false
	k.mu.Unlock()
	if k.conn, err = k.run.client.connect(ctx, forKeeping); err != nil {
		return err
	}
	k.connected = time.Now()
	if ids := k.run.numbers(); len(ids) > 0 && ids[0] != 0 && !k.conn.pooled {
		if err := k.run.client.store.LockAlive(ctx, k.conn, ids); err != nil {
			return fmt.Errorf("lock instances: %w", err)
		}
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
