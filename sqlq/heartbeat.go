package sqlq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// beat says that the instances live, learns of crashes, and looks after what a leader would have done.
func (k *keeper) beat(ctx context.Context) error {
	r := k.run
	st := r.client.store
	b := &pgx.Batch{}
	var alive []int32
	var crashes []store.Crash
	var late store.Late
	if counters := r.counters(time.Now()); k.mayNotCount.Load() {
		st.Heartbeat(b, r.numbers(), &alive)
	} else {
		st.CountingHeartbeat(b, counters, &alive)
	}
	reading := r.pauses.begin()
	var paused []store.Paused
	st.QueuePaused(b, r.endpoints(), &paused)
	var hidden []store.Hidden
	st.QueueHidden(b, r.endpoints(), &hidden)
	st.Crashes(b, r.endpoints(), crashMemory, &crashes)
	st.Late(b, lateness, &late)
	var leases []store.Lease
	st.Leases(b, r.numbers(), r.client.config.strandedAfter, &leases)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := k.conn.SendBatch(ctx, b).Close()
	if sqlState(err) == insufficientPrivs && !k.mayNotCount.Swap(true) {
		if k.beat(ctx) == nil {
			k.mayNot("write down what its instances have done, so operators do not see it", err)
			return nil
		}
		k.mayNotCount.Store(false) // that was not why
	}
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	r.learnPaused(reading, paused)
	r.learnHidden(hidden)
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
	if k.leadsNow() || late.Instance {
		if err := k.recover(ctx); err != nil {
			return err
		}
	}
	if late.Message && !k.leadsNow() {
		_, err := k.moveOthers(ctx, time.Time{})
		return err
	}
	return nil
}

// reregister gives instances that were thought dead a new number; their leases went to others.
func (k *keeper) reregister(ctx context.Context, alive []int32) error {
	known := map[int32]bool{}
	for _, id := range alive {
		known[id] = true
	}
	renewed := 0
	for _, in := range k.run.instances {
		was := in.number()
		if known[was] {
			continue
		}
		k.run.client.log.Warn("sqlq: this instance was thought dead and goes on under a new number; messages that it had leased are handled again", "endpoint", in.endpoint.Name, "instance", was)
		if err := k.register(ctx, in); err != nil {
			return err
		}
		renewed++
	}
	if renewed == 0 {
		return nil
	}
	k.run.listener.refresh() // the session of a process that was thought dead is ended by others; its lock may be a new one
	return nil
}

// register makes the instance's record. Its process's lock, which shows that it lives, bears the number of the first that it
// registered, and is taken before anybody can see the record and miss the lock. Where somebody else has that lock already, the
// record says that there is none, and the heartbeat alone shows that the instance lives.
func (k *keeper) register(ctx context.Context, in *instance) error {
	c := k.run.client
	record := store.Instance{
		Endpoint: in.endpoint.Name, Host: c.config.host, PID: os.Getpid(), Version: c.config.version,
		Concurrency: in.endpoint.Concurrency, Process: k.process.Load(), LeaseTime: c.config.LeaseTime,
	}
	record.SessionLock = !k.conn.pooled && (record.Process == 0 || k.alive)
	// A context that ended during the commit would leave a record that nobody ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var id int32
	var taken bool
	insert := func(tx pgx.Tx) (err error) {
		if id, err = c.store.Register(ctx, tx, record); err != nil || !record.SessionLock || record.Process != 0 {
			return err
		}
		if taken, err = c.store.TryAlive(ctx, tx, id); err == nil && !taken {
			err = errAliveTaken
		}
		return err
	}
	err := pgx.BeginTxFunc(ctx, k.conn, k.conn.keeping(), insert)
	if errors.Is(err, errAliveTaken) {
		c.log.Warn("sqlq: another session has the advisory lock that would show that this process lives; its heartbeat alone does, so its death is noticed later",
			"endpoint", in.endpoint.Name, "number", id, "after", c.config.LeaseTime)
		record.SessionLock = false
		err = pgx.BeginTxFunc(ctx, k.conn, k.conn.keeping(), insert)
	}
	if err != nil {
		return fmt.Errorf("register endpoint %q: %w", in.endpoint.Name, err)
	}
	if taken {
		k.process.Store(id)
		k.alive = true
	}
	in.mu.Lock()
	in.id = id
	in.mu.Unlock()
	return nil
}

var errAliveTaken = errors.New("another session has the lock that shows that the process lives")

// giveBackUnknown returns messages to their queues that are leased in this process's name although it does not have
// them: the connection was lost after the commit that leased them, and before its answer.
func (k *keeper) giveBackUnknown(ctx context.Context, leases []store.Lease) error {
	for _, in := range k.run.instances {
		ids := in.unknown(leases)
		if len(ids) == 0 {
			continue
		}
		var channels []string
		b := &pgx.Batch{}
		k.run.client.store.GiveBack(b, in.endpoint.Name, in.number(), ids, func(channel string) { channels = append(channels, channel) })
		if err := k.conn.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("give back leases that nobody has: %w", err)
		}
		k.run.client.wake(channels...)
	}
	return nil
}

// learn makes instances suspicious for a while after a crash of their endpoint that is news.
func (k *keeper) learn(crashes []store.Crash) {
	for _, crash := range crashes {
		if !crash.At.After(k.crashes[crash.Endpoint]) {
			continue
		}
		k.crashes[crash.Endpoint] = crash.At
		for _, in := range k.run.instances {
			if in.endpoint.Name == crash.Endpoint {
				in.suspect()
			}
		}
	}
}

// drained records that the instances ended in order, with what they have done.
func (k *keeper) drained(ctx context.Context, db store.DBTX) error {
	st := k.run.client.store
	if !k.mayNotCount.Load() {
		err := st.CountingDrained(ctx, db, k.run.counters(time.Now()))
		if sqlState(err) != insufficientPrivs {
			return err
		}
	}
	return st.Drained(ctx, db, k.run.numbers())
}

// counters returns what the instances have done and are doing, and names handlers in the log that run for long.
func (r *runner) counters(now time.Time) []store.Counters {
	var all []store.Counters
	for _, in := range r.instances {
		c, slow := in.counters(now)
		for _, d := range slow {
			if !d.slow.Swap(true) {
				r.client.log.Warn("sqlq: a handler runs for long", "endpoint", in.endpoint.Name, "type", d.stored.messageType, "message", d.stored.id,
					"for", now.Sub(d.batch.began).Round(time.Second), "attempt", d.made())
			}
		}
		all = append(all, c)
	}
	return all
}

// counters returns what the instance has done and is doing since the call before, and its handlers that run for long.
// Those are looked for among what is leased or held. A handler has run since its batch was fetched, or a little shorter.
func (in *instance) counters(now time.Time) (c store.Counters, slow []*delivery) {
	var held []*batch
	var inTx []*delivery
	for _, r := range in.run.receivers {
		if b := r.held.Load(); b != nil && b.in == in {
			held = append(held, b)
		}
		if d := r.handling.Load(); d != nil && d.batch.in == in {
			inTx = append(inTx, d)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	c = store.Counters{ID: in.id, Handled: int64(in.done.Handled), Failed: int64(in.done.Retried + in.done.Failed), Expired: int64(in.done.Expired), InHand: in.running()}
	if since := now.Sub(in.countedAt).Seconds(); !in.countedAt.IsZero() && since > 0 {
		c.Rate = float32(float64(in.done.Handled-in.counted) / since)
	}
	in.countedAt, in.counted = now, in.done.Handled
	note := func(d *delivery) {
		took := now.Sub(d.batch.began)
		c.Slowest = max(c.Slowest, took)
		if in.endpoint.SlowAfter > 0 && took > in.endpoint.SlowAfter {
			c.Slow++
			slow = append(slow, d)
		}
	}
	plain := func(d *delivery) bool { return d.handler != nil && !d.handler.inTx && isRunning.has(d.state) }
	for _, d := range in.leases {
		if plain(d) {
			note(d)
		}
	}
	for d := range in.removed {
		if plain(d) {
			note(d)
		}
	}
	for _, b := range held {
		for _, d := range b.all {
			if !d.custody.isSingle() && plain(d) {
				note(d)
			}
		}
	}
	for _, d := range inTx {
		note(d)
	}
	return c, slow
}
