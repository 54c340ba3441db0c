package presence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// beat records that the instances are alive, learns of crashes, and checks whether the leader's work is left undone.
func (k *Keeper) beat(ctx context.Context) error {
	st := k.Store
	b := &pgx.Batch{}
	var alive []int32
	var crashes []store.Crash
	var late store.Late
	if counters := countersOf(k.members); k.mayNotCount.Load() {
		st.Instances.Heartbeat(b, k.numbers(), &alive)
	} else {
		st.Instances.CountingHeartbeat(b, counters, &alive)
	}
	reading, endpoints := k.BeginReading(), endpointsOf(k.members)
	var paused []store.Paused
	st.Queues.Paused(b, endpoints, &paused)
	var hidden []store.Hidden
	st.Queues.Hidden(b, endpoints, &hidden)
	st.Instances.Crashes(b, endpoints, crashMemory, &crashes)
	st.Lead.Late(b, lateness, &late)
	var leases []store.Lease
	st.Leases.Older(b, k.numbers(), k.StrandedAfter, &leases)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := k.conn.SendBatch(ctx, b).Close()
	if session.State(err) == session.InsufficientPrivilege && !k.mayNotCount.Swap(true) {
		if k.beat(ctx) == nil {
			k.mayNot("write down what its instances have done, so operators do not see it; grant it consumer again", err)
			return nil
		}
		k.mayNotCount.Store(false) // that was not the reason
	}
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	k.LearnPaused(reading, endpoints, paused)
	k.LearnHidden(hidden)
	if err := k.reregister(ctx, alive); err != nil {
		return err
	}
	k.learn(crashes)
	if err := k.giveBackUnknown(ctx, leases); err != nil {
		return err
	}
	if err := k.tryLead(ctx, late.Message || late.Instance); err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	if k.Leads() || late.Instance {
		if err := k.recover(ctx); err != nil {
			return err
		}
	}
	if late.Message && !k.Leads() {
		_, err := k.mover.moveOthers(ctx, time.Time{})
		return err
	}
	return nil
}

// reregister gives new numbers to instances that were taken for dead; their leases went to others.
func (k *Keeper) reregister(ctx context.Context, alive []int32) error {
	known := map[int32]bool{}
	for _, id := range alive {
		known[id] = true
	}
	renewed := 0
	for _, m := range k.members {
		was := m.Number()
		if known[was] {
			continue
		}
		k.Log.Warn("sqlq: this instance was thought dead and goes on under a new number; messages that it had leased are handled again", "endpoint", m.Endpoint, "instance", was)
		if err := k.register(ctx, m); err != nil {
			return err
		}
		renewed++
	}
	if renewed == 0 {
		return nil
	}
	k.Refresh() // others end the session of a process that was taken for dead; its lock may be a new one
	return nil
}

// register creates the instance's record. The lock that shows that its process is alive is keyed by the number of the first instance that
// the process registered, and is taken before any other session can see the record and miss the lock. If another session already has
// that lock, the record says that there is none, and only the heartbeat shows that the instance is alive.
func (k *Keeper) register(ctx context.Context, m *Member) error {
	record := store.Instance{
		Endpoint: m.Endpoint, Host: k.Host, PID: os.Getpid(), Version: k.Version,
		Concurrency: m.Concurrency, Process: k.process.Load(), LeaseTime: k.LeaseTime,
	}
	record.SessionLock = !k.conn.Pooled && (record.Process == 0 || k.alive)
	// A context that ended during the commit would leave a record that is never ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var id int32
	var taken bool
	insert := func(tx pgx.Tx) (err error) {
		if id, err = k.Store.Instances.Register(ctx, tx, record); err != nil || !record.SessionLock || record.Process != 0 {
			return err
		}
		if taken, err = k.Store.Instances.TryAlive(ctx, tx, id); err == nil && !taken {
			err = errAliveTaken
		}
		return err
	}
	err := pgx.BeginTxFunc(ctx, k.conn, k.conn.Keeping(), insert)
	if errors.Is(err, errAliveTaken) {
		k.Log.Warn("sqlq: another session has the advisory lock that would show that this process lives; its heartbeat alone does, so its death is noticed later",
			"endpoint", m.Endpoint, "number", id, "after", k.LeaseTime)
		record.SessionLock = false
		err = pgx.BeginTxFunc(ctx, k.conn, k.conn.Keeping(), insert)
	}
	if err != nil {
		return fmt.Errorf("register endpoint %q: %w", m.Endpoint, err)
	}
	if taken {
		k.process.Store(id)
		k.alive = true
	}
	m.number.Store(id)
	return nil
}

var errAliveTaken = errors.New("another session has the lock that shows that the process is alive")

// giveBackUnknown returns messages to their queues that are leased in this process's name although it does not have
// them: the connection was lost after the commit that leased them, before the answer arrived.
func (k *Keeper) giveBackUnknown(ctx context.Context, leases []store.Lease) error {
	for _, m := range k.members {
		ids := m.Unknown(leases)
		if len(ids) == 0 {
			continue
		}
		var channels []string
		b := &pgx.Batch{}
		k.Store.Leases.GiveBack(b, m.Endpoint, m.Number(), ids, func(channel string) { channels = append(channels, channel) })
		if err := k.conn.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("give back leases that this process does not know: %w", err)
		}
		k.Wake(channels...)
	}
	return nil
}

// learn makes instances suspicious for a while after a new crash of their endpoint.
func (k *Keeper) learn(crashes []store.Crash) {
	for _, crash := range crashes {
		if !crash.At.After(k.crashes[crash.Endpoint]) {
			continue
		}
		k.crashes[crash.Endpoint] = crash.At
		for _, m := range k.members {
			if m.Endpoint == crash.Endpoint {
				m.Suspect()
			}
		}
	}
}

// drained records that members shut down cleanly, with what they have done.
func (k *Keeper) drained(ctx context.Context, db store.DBTX, members []*Member) error {
	st := k.Store
	if !k.mayNotCount.Load() {
		err := st.Instances.CountingDrained(ctx, db, countersOf(members))
		if session.State(err) != session.InsufficientPrivilege {
			return err
		}
	}
	return st.Instances.Drained(ctx, db, numbersOf(members))
}

// countersOf returns the counters of members.
func countersOf(members []*Member) []store.Counters {
	now := time.Now()
	var all []store.Counters
	for _, m := range members {
		c := m.Counters(now)
		c.ID = m.Number()
		all = append(all, c)
	}
	return all
}
