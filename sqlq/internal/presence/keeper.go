// Package presence shows that the instances of a process live and does the housekeeping: heartbeats, and, in the one process that
// leads, moving due messages, giving back what crashed instances had leased, and chores of low priority. It knows of an instance
// what its Member says.
package presence

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// crashMemory is how old a crash may be to make a starting instance suspicious.
	crashMemory = time.Hour
)

// Config is what a Keeper works with. Its functions are called from the Keeper's goroutine.
type Config struct {
	Store     *store.Schema
	Pool      *pgxpool.Pool // the program's: for what must be written down when the Keeper's connection is lost
	Log       *slog.Logger
	Connector *session.Connector
	Outage    *session.Outage

	LeaseTime     time.Duration // after so long without a heartbeat an instance is thought dead
	StrandedAfter time.Duration // how old a lease that its instance does not know must be to be given back
	KeepArchived  time.Duration // how long archived messages are kept; 0: for ever
	Host, Version string        // of the running program

	CheckDatabase func(ctx context.Context, db store.DBTX) error // refuses a connection that leads to another database
	Led           func(leads bool)                               // told when this process begins to lead, and when it ends
	Lost          func()                                         // the connection was lost: the next may reach another server
	Wake          func(channels ...string)                       // wakes the receivers that listen on channels
	Flush         func(ctx context.Context)                      // waits until they have been woken

	BeginReading func() int // begins a reading of which queues are paused, and returns its number
	LearnPaused  func(reading int, paused []store.Paused)
	LearnHidden  func(hidden []store.Hidden)

	Hears   func() bool // reports whether the listening session works, which hears when the lead is free
	Refresh func()      // has that session begin anew: numbers of instances have changed

	Raise   func(ctx context.Context, c *session.Conn) (again time.Duration, err error) // moves on where fetches start; again: when next
	KeepLow func(c *session.Conn)                                                       // writes that down for the process that starts in its place
}

// Keeper owns the connection of a process that keeps house: heartbeats, and, in the one process that leads, moving due
// messages, giving back what crashed instances had, and the chores. Leading is a session lock, so that a dead leader is followed
// at the next heartbeat of another (but see tryLead), and one that ends in order at once, because it says so; that a frozen one
// gets nothing done is noticed by the others, who then do it once.
type Keeper struct {
	Config
	members   []*Member
	conn      *session.Conn
	connected time.Time
	process   atomic.Int32      // the number of the lock that shows that the process lives; 0: there is none
	alive     bool              // the connection holds that lock
	tried     time.Time         // when it last tried to take that or to lead, between heartbeats
	byAge     bool              // it leads as the oldest instance, because a stranger has the leader's lock
	strangers session.Strangers // with the leader's lock
	claimants session.Strangers // with the lock that shows that the process lives

	mu     sync.Mutex // guards leads and vacant; the fields above and below are of the goroutine that runs Start, Keep and End, but for the atomic ones
	leads  bool
	vacant bool // whoever led has said that it does no more

	kick    chan struct{}        // filled when there is something to look for at once
	crashes map[string]time.Time // the latest known of each endpoint
	mover   *mover
	chores  *chores

	unrecovered bool             // there is more to give back of what ended instances had leased
	smallRounds map[string]round // of queues in which giving back took too long

	mayNotCount atomic.Bool // the role lacks the privilege to write down what its instances have done
}

// New returns a Keeper that does nothing yet.
func New(config Config) *Keeper {
	k := &Keeper{Config: config, strangers: session.Strangers{Log: config.Log}, claimants: session.Strangers{Log: config.Log}, kick: make(chan struct{}, 1),
		crashes: map[string]time.Time{}, smallRounds: map[string]round{}}
	k.mover, k.chores = newMover(k), newChores(k)
	return k
}

// Use has the Keeper keep house for these. It is called once, before Start.
func (k *Keeper) Use(members []*Member) { k.members = members }

// Process returns the number of the lock that shows that the process lives; 0: there is none.
func (k *Keeper) Process() int32 { return k.process.Load() }

// Start registers the instances and gives back what dead ones had, before the first message is fetched.
func (k *Keeper) Start(ctx context.Context) error {
	if err := k.connect(ctx); err != nil {
		return err
	}
	if err := k.CheckDatabase(ctx, k.conn); err != nil {
		return err
	}
	for _, m := range k.members {
		if err := k.register(ctx, m); err != nil {
			return err
		}
	}
	if err := k.recover(ctx); err != nil {
		return err
	}
	doubtful, err := k.Store.Instances.Doubtful(ctx, k.conn, k.numbers())
	if err != nil {
		return fmt.Errorf("look for crashed instances: %w", err)
	}
	for _, m := range k.members {
		if slices.Contains(doubtful, m.Endpoint) {
			m.Suspect()
		}
	}
	return k.beat(ctx)
}

// Keep does the housekeeping until stop ends. What is under way then is finished, unless ctx ends: cut off, it might leave the
// record of an instance that nobody ends, and the connection, whose locks show that the instances live.
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
		// Bounded, so that no piece of work can keep the heartbeat waiting until this process is thought dead.
		bounded, cancel := context.WithTimeout(ctx, k.LeaseTime/2)
		err := k.connect(bounded)
		if err == nil && !time.Now().Before(beat) {
			beat = time.Now().Add(every)
			err = k.beat(bounded)
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
		beat = time.Now() // at once: the lead went with the connection
		k.Lost()
		if k.Outage.Begin(session.Keep, err) {
			k.Outage.Wait(stop, &retry)
			continue
		}
		k.Log.Warn("sqlq: housekeeping failed, trying again", "err", err)
		retry.Wait(stop)
	}
}

// pause waits for d or a kick; false when ctx ended.
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

// lackedEvery is the pause between attempts to get what a connection lacks, where nothing tells when it is free.
const lackedEvery = time.Second

// lacks reports whether there is something to try for between heartbeats: the lock that shows that the process lives, or the
// lead, where the listener does not hear when that is free.
func (k *Keeper) lacks() bool {
	return k.lacksAlive() || k.claimants.HasTold() || !k.Leads() && !k.Hears()
}

func (k *Keeper) lacksAlive() bool { return k.process.Load() != 0 && !k.alive && !k.conn.Pooled }

// tryAgain tries for what the connection lacks.
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

// tellOfClaimants says who has the lock that shows that this process lives, if it does not.
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

// End hands over the lead, records that the instances ended in order, and wakes others for the messages that were given back.
// Only then does it let go of the lock that shows that they live. It waits until pending wake-ups have been sent.
func (k *Keeper) End() {
	defer k.disconnect()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	k.handOver(ctx)
	st := k.Store
	err := k.onOwn(ctx, func(db store.DBTX) error {
		if err := k.drained(ctx, db); err != nil {
			return err
		}
		return st.Wakeups.Wake(ctx, db, k.endpoints())
	})
	if err != nil {
		k.Log.Warn("sqlq: cannot record the end of this instance; others will take it for crashed", "err", err)
	}
	if k.conn != nil && !k.conn.IsClosed() { // by the connection on which low was found: another server might not have got so far
		k.KeepLow(k.conn)
	}
	k.Flush(ctx)
}

// onOwn runs statements on the keeper's connection, and where it is lost on the pool's: the program may have those busy.
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

// holdAlive tries to take the lock that shows that the process lives, if it has one and the connection does not hold it.
func (k *Keeper) holdAlive(ctx context.Context) (err error) {
	process := k.process.Load()
	if process == 0 || k.alive || k.conn.Pooled {
		return nil
	}
	if k.alive, err = k.Store.Instances.TryAlive(ctx, k.conn, process); err != nil {
		return fmt.Errorf("show that the process lives: %w", err)
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

// mayNot says once that the role lacks a privilege that an endpoint can do without, and what follows.
func (k *Keeper) mayNot(what string, err error) {
	k.Log.Warn("sqlq: this role may not "+what, "schema", k.Store.Name(), "err", err)
}
