package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// The watch. If every sleeping process were notified of every message, a queue would cost the more the more processes
// receive from it. So of the processes that sleep on a queue one keeps the watch: it holds the queue's watch lock, which
// only one session can, listens on the queue's channel, and while it sleeps it holds the sleeper's lock, shared. Senders
// that insert afterwards see the sleeper's lock and notify. Whoever inserted before holds the table's lock until its
// transaction ends; those are noted, and looked for until they have ended. So no message waits for the poll, and senders
// to a queue whose watch is awake do not notify at all.
//
// The others are on call: they do not hear the senders. Whoever is awake and has more than it can do gives up the watch,
// if it has it, and calls them; each looks, and the first that finds nothing more to do takes the watch. If the process
// with the watch dies or freezes nobody is called, so those on call try to take the watch, and see whether messages
// wait, every second.
//
// Every role of the database can take these locks too, and keep them. So nobody waits for one: where the sleeper's lock is
// refused the instance does not sleep, but looks every second, and where the watch is refused it is on call.
const (
	// linger is the pause between looks of an instance that finds its queue empty but does not sleep yet. A look in vain
	// costs two of its patience, another gives one back.
	linger      = time.Millisecond
	maxPatience = 3
	// maxNaps is how many sleeps in a row, each shorter than shortNap, make an instance look by itself for a while instead.
	maxNaps  = 4
	shortNap = linger / 2
	// callEvery bounds how often an instance calls others.
	callEvery = 50 * time.Millisecond
)

// rest is how an instance sleeps.
type rest int

const (
	deaf     rest = iota // it does not, or nobody can wake it: only polling helps
	watching             // senders notify it
	onCall               // another process is notified, and calls it when it has more than it can do
)

// wish is how an instance wants to stand towards senders.
type wish int

const (
	awake  wish = iota // looks by itself, and keeps the watch if it has it
	asleep             // keeps the watch if it is to be had, else is on call
	away               // leaves the watch to others
)

// post is how an instance stands towards its queue's senders: what it wishes, and what the session holds for it. The
// listener's mutex guards it; only the listener's goroutine changes what the session holds.
type post struct {
	in     *instance
	wish   wish
	asking chan struct{} // closed when the wish to sleep is granted or withdrawn; nil: it has been

	watch bool            // the session holds the watch, and listens on the queue's channel
	flag  bool            // and the sleeper's lock
	noted map[string]bool // transactions that were writing when it fell asleep

	refusals int       // how often in a row the sleeper's lock was refused
	refused  time.Time // when first
	again    time.Time // when to try next

	call   bool // others are to be called
	called time.Time
}

func (p *post) wishFor(w wish) {
	p.wish = w
	p.answer()
}

// answer lets whoever waits for its wish to sleep go on, granted or not.
func (p *post) answer() {
	if p.asking != nil {
		close(p.asking)
		p.asking = nil
	}
}

// rests says how the instance sleeps.
func (p *post) rests() rest {
	switch {
	case p == nil || p.wish != asleep || p.asking != nil:
		return deaf
	case p.flag:
		return watching
	case p.watch:
		return deaf // the sleeper's lock was refused, so senders do not see that it sleeps
	}
	return onCall
}

// refuse notes that the sleeper's lock was refused. Mostly a sender has it, for microseconds.
func (p *post) refuse(now time.Time) {
	if p.refusals == 0 {
		p.refused = now
	}
	p.refusals++
	p.again = now.Add(min(time.Millisecond<<min(p.refusals, 10), time.Second))
}

// sleep lets the instance sleep, and says how. When it returns watching, senders notify it from now on.
func (l *listener) sleep(ctx context.Context, in *instance) rest {
	l.mu.Lock()
	p := l.posts[in]
	if p == nil || !l.connected || l.late || l.run.schedule.isDraining() {
		l.mu.Unlock()
		return deaf
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
	return l.rests(in)
}

func (l *listener) rests(in *instance) rest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.howRests(in)
}

// howRests is rests for those who hold mu. While the listener is late it wakes nobody.
func (l *listener) howRests(in *instance) rest {
	if l.late {
		return deaf
	}
	return l.posts[in].rests()
}

// isRefused reports whether the instance would sleep and cannot, because others have the sleeper's lock.
func (l *listener) isRefused(in *instance) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.posts[in]
	return p != nil && p.wish == asleep && p.watch && p.refusals > 0
}

// keepsWatch reports whether the session keeps the watch over the queue that a channel is for.
func (l *listener) keepsWatch(channel string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.byChannel[channel]
	return in != nil && l.posts[in] != nil && l.posts[in].watch
}

// rouse spares the senders: the instance looks by itself for a while, and keeps the watch, so that nobody else does.
func (l *listener) rouse(in *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.posts[in]; p != nil {
		p.wishFor(awake)
		l.poke()
	}
}

// leave leaves the watch to others, without calling them: the instance's queue is paused.
func (l *listener) leave(in *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.posts[in]; p != nil && p.wish != away {
		p.wishFor(away)
		l.poke()
	}
}

// overflow says that there may be more in the queue than the instance can do: it leaves the watch to others, and calls
// them.
func (l *listener) overflow(in *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.posts[in]
	if p == nil {
		return
	}
	if p.wish == asleep {
		defer in.wake() // it must not go on sleeping as if others would wake it
	}
	p.wishFor(away)
	p.call = true
	l.poke()
}

// grant makes what the session holds what the instances wish for, so far as others let it, and returns when to try again.
func (l *listener) grant(ctx context.Context, c *session.Conn) (again time.Duration, err error) {
	if err := l.release(ctx, c); err != nil {
		return 0, err
	}
	asking := map[*instance]chan struct{}{}
	l.hold(l.which(func(p *post) bool { return p.asking != nil }), func(p *post) { asking[p.in] = p.asking })
	if err := l.takeWatch(ctx, c, l.which(func(p *post) bool { return asking[p.in] != nil && !p.watch })); err != nil {
		return 0, err
	}
	if err := l.raiseFlags(ctx, c); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	again = time.Hour
	for in, p := range l.posts {
		// Who withdrew the wish meanwhile, and has it again, may have been called in between: it cannot go on call yet.
		if p.asking != nil && (p.flag || p.asking == asking[in]) {
			p.answer()
		}
		if p.wish == asleep && p.watch && !p.flag {
			again = min(again, time.Until(p.again))
		}
	}
	return again, nil
}

// which returns the instances whose posts are as asked for, always in the same order.
func (l *listener) which(is func(*post) bool) (ins []*instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.run.instances {
		if p := l.posts[in]; p != nil && is(p) {
			ins = append(ins, in)
		}
	}
	return ins
}

// hold changes posts.
func (l *listener) hold(ins []*instance, change func(*post)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range ins {
		change(l.posts[in])
	}
}

// release gives back the locks of those that are awake, and the watch of those that are away.
func (l *listener) release(ctx context.Context, c *session.Conn) error {
	flags := l.which(func(p *post) bool { return p.flag && p.wish != asleep })
	watches := l.which(func(p *post) bool { return p.watch && p.wish == away })
	if len(flags)+len(watches) == 0 {
		return nil
	}
	l.hold(flags, func(p *post) { p.noted = nil })
	b := &pgx.Batch{}
	if len(flags) > 0 {
		l.run.client.store.SetAwake(b, l.tablesOf(flags))
	}
	if len(watches) > 0 {
		l.run.client.store.LeaveWatch(b, l.tablesOf(watches))
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

// takeWatch takes the watch for those of the instances for which it is to be had.
func (l *listener) takeWatch(ctx context.Context, c *session.Conn, ins []*instance) error {
	if len(ins) == 0 {
		return nil
	}
	tables := l.tablesOf(ins)
	granted, err := l.run.client.store.TakeWatch(ctx, c, tables)
	if err != nil {
		return fmt.Errorf("take the watch: %w", err)
	}
	var has []*instance
	sql := ""
	for i, in := range ins {
		if granted[i] {
			has = append(has, in)
			sql += "LISTEN " + tables[i].Channel() + ";"
		}
	}
	if len(has) == 0 {
		return nil
	}
	// Committed before the sleeper's lock is taken: whoever sees that lock is heard.
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.hold(has, func(p *post) { p.watch = true })
	return nil
}

// raiseFlags has senders notify those that have the watch and want to sleep, where the sleeper's lock is to be had, and notes
// who was writing to their queues. Whoever does not wait for it is woken, to look once more: what was committed before the
// flag was up notified nobody.
func (l *listener) raiseFlags(ctx context.Context, c *session.Conn) error {
	now := time.Now()
	ins := l.which(func(p *post) bool { return p.wish == asleep && p.watch && !p.flag && !now.Before(p.again) })
	if len(ins) == 0 {
		return nil
	}
	var raised []bool
	var writers []store.Writer
	b := &pgx.Batch{}
	l.run.client.store.SetAsleep(b, l.tablesOf(ins), &raised)
	l.run.client.store.Writers(b, l.tablesOf(ins), &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("take the locks of sleepers: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, in := range ins {
		p := l.posts[in]
		if !raised[i] {
			p.refuse(now)
			continue
		}
		p.refusals, p.again = 0, time.Time{}
		p.flag, p.noted = true, transactions(writers, l.tables[in])
		if p.wish != asleep {
			l.poke() // not any more
		} else if p.asking == nil {
			defer in.wake()
		}
	}
	return nil
}

// callOthers calls the receivers of other processes for instances that have more than they can do, after they have left
// the watch, and returns when to do so again.
func (l *listener) callOthers(ctx context.Context, c *session.Conn) (time.Duration, error) {
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
	if err := l.run.client.store.Call(ctx, c, l.tablesOf(due)); err != nil {
		return 0, fmt.Errorf("call other receivers: %w", err)
	}
	return pause, nil
}

// standBy tries to take the watch for those on call, has them look where messages wait although somebody else has it,
// and returns when to do so again.
func (l *listener) standBy(ctx context.Context, c *session.Conn) (time.Duration, error) {
	every := l.run.client.config.standbyEvery
	ins := l.which(func(p *post) bool { return p.rests() == onCall })
	if len(ins) == 0 {
		return every, nil
	}
	if next := time.Until(l.stoodBy.Add(every)); next > 0 {
		return next, nil
	}
	l.stoodBy = time.Now()
	if err := l.takeWatch(ctx, c, ins); err != nil {
		return 0, err
	}
	if err := l.raiseFlags(ctx, c); err != nil {
		return 0, err
	}
	waiting, err := l.waiting(ctx, c, l.which(func(p *post) bool { return p.rests() == onCall }))
	if err != nil {
		return 0, err
	}
	for _, in := range waiting {
		in.wake()
	}
	return every, nil
}
