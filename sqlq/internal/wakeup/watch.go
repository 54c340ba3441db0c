package wakeup

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// The watch. If every sleeping process were notified of every message, a queue would cost more with each process that
// receives from it. So of the processes that sleep on a queue, one keeps the watch: it holds the queue's watch lock, which
// only one session can hold, listens on the queue's channel, and while it sleeps it holds the sleeper's lock, shared. Senders
// that insert afterwards see the sleeper's lock and notify. A transaction that inserted before holds the table's lock until it
// ends; such transactions are noted, and checked until they have ended. So no message waits for the poll, and senders
// to a queue whose watch is awake do not notify at all.
//
// The others are on call: they do not hear the senders. A process that is awake and has more than it can handle gives up the
// watch, if it has it, and calls them; each looks, and the first that finds nothing more to do takes the watch. If the process
// with the watch dies or freezes it calls no one, so every second those on call try to take the watch, and check whether
// messages are waiting.
//
// Every role of the database can take these locks too, and keep them. So the library never waits for one: if the sleeper's lock is
// refused the endpoint does not sleep, but looks every second, and if the watch is refused it is on call.
const (
	// linger is the pause between looks of an endpoint that finds its queue empty but does not sleep yet. A look that finds nothing
	// costs two points of its patience, one that finds something gives one back.
	linger      = time.Millisecond
	maxPatience = 3
	// maxNaps is how many sleeps in a row, each shorter than shortNap, make an endpoint poll by itself for a while instead.
	maxNaps  = 4
	shortNap = linger / 2
	// callEvery limits how often an endpoint calls others.
	callEvery = 50 * time.Millisecond
)

// sleep lets the endpoint sleep, and returns how. If that is Watching, senders notify it from now on.
func (l *Listener) sleep(ctx context.Context, bell *Bell) Rest {
	l.mu.Lock()
	p := l.posts[bell]
	if p == nil || !l.connected || l.late || bell.IsDraining() {
		l.mu.Unlock()
		return Deaf
	}
	p.wishFor(asleep)
	asking := make(chan struct{})
	p.asking = asking
	l.poke()
	l.mu.Unlock()
	select {
	case <-asking:
	case <-ctx.Done():
	}
	return l.rests(bell)
}

// grant takes and releases locks until the session holds what the endpoints want, as far as others allow it, and returns when to try again.
func (l *Listener) grant(ctx context.Context, c *session.Conn) (again time.Duration, err error) {
	if err := l.release(ctx, c); err != nil {
		return 0, err
	}
	asking := map[*Bell]chan struct{}{}
	l.hold(l.which(func(p *post) bool { return p.asking != nil }), func(p *post) { asking[p.bell] = p.asking })
	if err := l.takeWatch(ctx, c, l.which(func(p *post) bool { return asking[p.bell] != nil && !p.watch })); err != nil {
		return 0, err
	}
	if err := l.raiseFlags(ctx, c); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	again = time.Hour
	for bell, p := range l.posts {
		// An endpoint that withdrew its wish and then renewed it may have been called in between: it cannot go on call yet.
		if p.asking != nil && (p.flag || p.asking == asking[bell]) {
			p.answer()
		}
		if p.wish == asleep && p.watch && !p.flag {
			again = min(again, time.Until(p.again))
		}
	}
	return again, nil
}

// release releases the sleeper's locks of endpoints that are awake, and the watch of those that are away.
func (l *Listener) release(ctx context.Context, c *session.Conn) error {
	flags := l.which(func(p *post) bool { return p.flag && p.wish != asleep })
	watches := l.which(func(p *post) bool { return p.watch && p.wish == away })
	if len(flags)+len(watches) == 0 {
		return nil
	}
	l.hold(flags, func(p *post) { p.noted = nil })
	b := &pgx.Batch{}
	if len(flags) > 0 {
		l.Store.Wakeups.SetAwake(b, l.tablesOf(flags))
	}
	if len(watches) > 0 {
		l.Store.Wakeups.LeaveWatch(b, l.tablesOf(watches))
	}
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("release the locks of sleepers: %w", err)
	}
	if len(watches) > 0 {
		sql := ""
		for _, table := range l.tablesOf(watches) {
			sql += "UNLISTEN " + table.Channel() + ";"
		}
		if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("unlisten: %w", err)
		}
	}
	l.hold(flags, func(p *post) { p.flag = false })
	l.hold(watches, func(p *post) { p.watch = false })
	return nil
}

// takeWatch acquires the watch for each endpoint where it is free.
func (l *Listener) takeWatch(ctx context.Context, c *session.Conn, bells []*Bell) error {
	if len(bells) == 0 {
		return nil
	}
	tables := l.tablesOf(bells)
	granted, err := l.Store.Wakeups.TakeWatch(ctx, c, tables)
	if err != nil {
		return fmt.Errorf("take the watch: %w", err)
	}
	var has []*Bell
	sql := ""
	for i, bell := range bells {
		if granted[i] {
			has = append(has, bell)
			sql += "LISTEN " + tables[i].Channel() + ";"
		}
	}
	if len(has) == 0 {
		return nil
	}
	// This commits before the sleeper's lock is taken, so a sender that sees that lock is heard.
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.hold(has, func(p *post) { p.watch = true })
	return nil
}

// raiseFlags takes the sleeper's lock for endpoints that have the watch and want to sleep, if it is free, so that senders notify
// them, and notes which transactions were writing to their queues. An endpoint that does not wait for it is woken, to look once more:
// what was committed before the lock was taken sent no notification.
func (l *Listener) raiseFlags(ctx context.Context, c *session.Conn) error {
	now := time.Now()
	bells := l.which(func(p *post) bool { return p.wish == asleep && p.watch && !p.flag && !now.Before(p.again) })
	if len(bells) == 0 {
		return nil
	}
	var raised []bool
	var writers []store.Writer
	b := &pgx.Batch{}
	l.Store.Wakeups.SetAsleep(b, l.tablesOf(bells), &raised)
	l.Store.Tables.Writers(b, l.tablesOf(bells), &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("take the locks of sleepers: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, bell := range bells {
		p := l.posts[bell]
		if !raised[i] {
			p.refuse(now)
			continue
		}
		p.refusals, p.again = 0, time.Time{}
		p.flag, p.noted = true, store.TransactionsOn(writers, l.tables[bell])
		if p.wish != asleep {
			l.poke() // it no longer wants that
		} else if p.asking == nil {
			defer bell.Ring(Called)
		}
	}
	return nil
}

// callOthers calls the receivers of other processes for endpoints that have more than they can handle, after they have left
// the watch, and returns when to do so again.
func (l *Listener) callOthers(ctx context.Context, c *session.Conn) (time.Duration, error) {
	now, pause := time.Now(), time.Hour
	due := l.which(func(p *post) bool {
		if p.call && now.Sub(p.called) < callEvery {
			pause = min(pause, p.called.Add(callEvery).Sub(now))
		}
		return p.call && now.Sub(p.called) >= callEvery
	})
	if len(due) == 0 {
		return pause, nil
	}
	l.hold(due, func(p *post) { p.call, p.called = false, now })
	if err := l.Store.Wakeups.Call(ctx, c, l.tablesOf(due)); err != nil {
		return 0, fmt.Errorf("call other receivers: %w", err)
	}
	return pause, nil
}

// standBy tries to take the watch for endpoints on call, makes them look if messages are waiting although another process has it,
// and returns when to do so again.
func (l *Listener) standBy(ctx context.Context, c *session.Conn) (time.Duration, error) {
	every := l.StandbyEvery
	bells := l.which(func(p *post) bool { return p.rests() == OnCall })
	if len(bells) == 0 {
		return every, nil
	}
	if next := time.Until(l.stoodBy.Add(every)); next > 0 {
		return next, nil
	}
	l.stoodBy = time.Now()
	if err := l.takeWatch(ctx, c, bells); err != nil {
		return 0, err
	}
	if err := l.raiseFlags(ctx, c); err != nil {
		return 0, err
	}
	waiting, err := l.waiting(ctx, c, l.which(func(p *post) bool { return p.rests() == OnCall }))
	if err != nil {
		return 0, err
	}
	for _, bell := range waiting {
		bell.Ring(Called)
	}
	return every, nil
}
