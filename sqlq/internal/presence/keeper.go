// Package presence shows that the instances of a process are alive and does the housekeeping: heartbeats and, in the one process that
// leads, moving due messages, giving back what crashed instances had leased, and low-priority chores. All that it knows about an
// instance is in its Member.
package presence

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// crashMemory is how old a crash may be to still make a starting instance suspicious.
	crashMemory = time.Hour
)

// Config is what a Keeper works with. Its functions are called from the Keeper's goroutine.
type Config struct {
	Store     *store.Schema
	Pool      *pgxpool.Pool // the program's, for what must be recorded when the Keeper's connection is lost
	Log       *slog.Logger
	Connector *session.Connector
	Outage    *session.Outage

	LeaseTime     time.Duration // without a heartbeat for this long, an instance is taken for dead
	StrandedAfter time.Duration // a lease that its instance does not know is given back at this age
	KeepArchived  time.Duration // how long archived messages are kept; 0: for ever
	Host, Version string        // of the running program

	CheckDatabase func(ctx context.Context, db store.DBTX) error // returns an error for a connection that leads to another database
	Led           func(leads bool)                               // called when this process begins to lead, and when it stops
	Lost          func()                                         // called when the connection was lost: the next one may reach another server
	Wake          func(channels ...string)                       // wakes the receivers that listen on channels
	Flush         func(ctx context.Context)                      // waits until they have been woken

	BeginReading func() int                                                // begins a reading of which queues are paused, and returns its number
	LearnPaused  func(reading int, queues []string, paused []store.Paused) // of those queues, those that are paused
	LearnHidden  func(hidden []store.Hidden)

	Hears   func() bool // reports whether the listening session works, and so hears when the lead becomes free
	Refresh func()      // makes that session start over, because instance numbers have changed

	Raise   func(ctx context.Context, c *session.Conn) (again time.Duration, err error) // raises the place where fetches start; again is when to do so next
	KeepLow func(c *session.Conn)                                                       // stores that place for the next process to start
}

// Keeper owns the housekeeping connection of a process: heartbeats and, in the one process that leads, moving due
// messages, giving back what crashed instances had, and the chores. The leader holds a session lock. So a dead leader is replaced
// at the next heartbeat of another process (but see tryLead), and one that shuts down cleanly is replaced at once, because it says so. The
// others notice if a frozen leader gets nothing done, and then do it once.
type Keeper struct {
	Config
	members   []*Member
	conn      *session.Conn
	connected time.Time
	process   atomic.Int32      // the number of the lock that shows that the process is alive; 0: there is none
	alive     bool              // the connection holds that lock
	tried     time.Time         // when it last tried to take that lock or to lead, between heartbeats
	byAge     bool              // it leads as the oldest instance, because a stranger has the leader's lock
	strangers session.Strangers // that hold the leader's lock
	claimants session.Strangers // that hold the lock that shows that the process is alive

	mu     sync.Mutex // guards leads and vacant; all other fields, except the atomic ones, belong to the goroutine that runs Start, Keep and End
	leads  bool
	vacant bool // the leader has said that it no longer leads

	kick    chan struct{}        // filled when there is something to do at once
	crashes map[string]time.Time // the latest known crash of each endpoint
	roll    *roll
	mover   *mover
	chores  *chores

	unrecovered bool             // there are more messages of ended instances to give back
	smallRounds map[string]round // for queues in which giving back took too long

	mayNotCount atomic.Bool // the role lacks the privilege to record the counters of its instances
}

// New returns a Keeper that does nothing yet.
func New(config Config) *Keeper {
	k := &Keeper{Config: config, strangers: session.Strangers{Log: config.Log}, claimants: session.Strangers{Log: config.Log}, kick: make(chan struct{}, 1),
		crashes: map[string]time.Time{}, smallRounds: map[string]round{}}
	k.roll, k.mover, k.chores = &roll{keeper: k}, newMover(k), newChores(k)
	return k
}

// Process returns the number of the lock that shows that the process is alive; 0: there is none.
func (k *Keeper) Process() int32 { return k.process.Load() }

// Start registers the first members and gives back what dead instances had, before the first message is fetched.
func (k *Keeper) Start(ctx context.Context, members []*Member) error {
	if err := k.connect(ctx); err != nil {
		return err
	}
	if err := k.CheckDatabase(ctx, k.conn); err != nil {
		return err
	}
	if err := k.roll.registerAll(ctx, members); err != nil {
		return err
	}
	if err := k.recover(ctx); err != nil {
		return err
	}
	return k.roll.introduce(ctx, members)
}

// Keep does the housekeeping until stop ends. Work in progress is then finished, unless ctx ends: if it were cut off, it might leave the
// record of an instance that is never ended, or lose the connection, whose locks show that the instances are alive.
func (k *Keeper) Keep(ctx, stop context.Context) {
	var retry session.Backoff
	every := min(k.LeaseTime/3, 5*time.Second)
	beat := time.Now().Add(every)
	next := time.Duration(0)
	for {
		pause := max(0, min(time.Until(beat), next))
		if !k.pause(stop, pause) {
			return
		}
		// Each piece of work is bounded, so that none can delay the heartbeat until this process is taken for dead.
		bounded, cancel := context.WithTimeout(ctx, k.LeaseTime/2)
		err := k.connect(bounded)
		if err == nil && !time.Now().Before(beat) {
			beat = time.Now().Add(every)
			err = k.beat(bounded)
		}
		if err == nil {
			err = k.roll.attendTo(bounded)
		}
		if err == nil {
			err = k.tryAgain(bounded)
		}
		if err == nil {
			next, err = k.mover.moveDue(bounded)
			if k.lacks() {
				next = min(next, lackedEvery)
			}
		}
		if err == nil && k.unrecovered {
			next, err = 0, k.giveBack(bounded)
		}
		if err == nil {
			var again time.Duration
			again, err = k.Raise(bounded, k.conn)
			next = min(next, again)
		}
		if err == nil {
			err = k.chores.run(bounded)
			next = min(next, k.chores.pause())
		}
		cancel()
		if err == nil {
			retry.Reset()
			k.Outage.End(session.Keep, time.Now())
			continue
		}
		k.disconnect()
		if stop.Err() != nil {
			return
		}
		beat = time.Now() // at once, because the lead was lost with the connection
		k.Lost()
		if k.Outage.Begin(session.Keep, err) {
			k.Outage.Wait(stop, &retry)
			continue
		}
		k.Log.Warn("sqlq: housekeeping failed, trying again", "err", err)
		retry.Wait(stop)
	}
}

// pause waits for d or a kick; false if ctx ended.
func (k *Keeper) pause(ctx context.Context, d time.Duration) bool {
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

// lackedEvery is the pause between attempts to get what a connection lacks, if no notification says when it is free.
const lackedEvery = time.Second

// lacks reports whether there is something to try for between heartbeats: the lock that shows that the process is alive, or the
// lead, if the listener cannot hear when that becomes free.
func (k *Keeper) lacks() bool {
	return k.lacksAlive() || k.claimants.HasTold() || !k.Leads() && !k.Hears()
}

func (k *Keeper) lacksAlive() bool { return k.process.Load() != 0 && !k.alive && !k.conn.Pooled }

// tryAgain tries to get what the connection lacks.
func (k *Keeper) tryAgain(ctx context.Context) error {
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
	if k.Leads() {
		return nil
	}
	return k.tryLead(ctx, false)
}

// tellOfClaimants logs which session has the lock that shows that this process is alive, if another one has it.
func (k *Keeper) tellOfClaimants(ctx context.Context) error {
	if !k.lacksAlive() && !k.claimants.HasTold() || time.Since(k.claimants.Looked) < session.StrangersEvery {
		return nil
	}
	k.claimants.Looked = time.Now()
	found, err := k.Store.Sessions.Strangers(ctx, k.conn)
	if err != nil {
		return fmt.Errorf("look for who holds locks: %w", err)
	}
	k.claimants.Tell(found, func(f store.Stranger) string {
		if f.Lock == store.LockAlive && f.Number == int64(k.process.Load()) && k.lacksAlive() {
			return "this process cannot show by it that it lives, and may be thought dead when that session lets go"
		}
		return ""
	})
	return nil
}

// End hands over the lead, records that the instances shut down cleanly, and wakes others for the messages that were given back.
// Only then does it release the lock that shows that they are alive. It waits until pending wake-ups have been sent.
func (k *Keeper) End() {
	defer k.disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	k.handOver(ctx)
	st := k.Store
	err := k.onOwn(ctx, func(db store.DBTX) error {
		if err := k.drained(ctx, db, k.members); err != nil {
			return err
		}
		return st.Wakeups.Wake(ctx, db, endpointsOf(k.members))
	})
	if err != nil {
		k.Log.Warn("sqlq: cannot record the end of this instance; others will take it for crashed", "err", err)
	}
	if k.conn != nil && !k.conn.IsClosed() { // on the connection on which low was found: another server might be behind
		k.KeepLow(k.conn)
	}
	k.Flush(ctx)
}

// onOwn runs statements on the keeper's connection, or on one of the pool if that is lost. The pool comes second because the program
// may have all of its connections in use.
func (k *Keeper) onOwn(ctx context.Context, run func(db store.DBTX) error) error {
	if k.conn != nil && !k.conn.IsClosed() {
		if err := run(k.conn); err == nil || !session.Lost(err) || ctx.Err() != nil {
			return err
		}
	}
	return session.OnPool(ctx, k.Pool, run)
}

func (k *Keeper) connect(ctx context.Context) (err error) {
	if k.conn != nil && !k.conn.IsClosed() {
		return nil
	}
	k.lead(false)
	k.alive, k.byAge = false, false
	if k.conn, err = k.Connector.Connect(ctx, session.Keep); err != nil {
		return err
	}
	k.connected = time.Now()
	return k.holdAlive(ctx)
}

// holdAlive tries to take the lock that shows that the process is alive, if it has one and the connection does not hold it.
func (k *Keeper) holdAlive(ctx context.Context) (err error) {
	process := k.process.Load()
	if process == 0 || k.alive || k.conn.Pooled {
		return nil
	}
	if k.alive, err = k.Store.Instances.TryAlive(ctx, k.conn, process); err != nil {
		return fmt.Errorf("take the lock that shows that the process is alive: %w", err)
	}
	return nil
}

func (k *Keeper) disconnect() {
	if k.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	k.conn.Close(ctx)
	k.conn = nil
}

// mayNot logs once that the role lacks a privilege that an endpoint can do without, and what follows.
func (k *Keeper) mayNot(what string, err error) {
	k.Log.Warn("sqlq: this role may not "+what, "schema", k.Store.Name(), "err", err)
}
