package sqlq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// linger is the pause between looks of an instance that finds its queue empty but does not sleep yet: maxMissed in
	// vain and it does. It begins to look by itself after maxNaps shorter than that.
	linger    = time.Millisecond
	maxMissed = 3
	maxNaps   = 4
	// lookAgain bounds the pauses between looks for transactions that were writing when the instance fell asleep.
	lookAgainMin, lookAgainMax = 2 * time.Millisecond, 50 * time.Millisecond
	// callEvery bounds how often others are called, and standbyEvery is the pause between tries to take the watch.
	callEvery, standbyEvery = 200 * time.Millisecond, 2 * time.Second
	// pollNet is the default of Config.PollInterval where LISTEN works.
	pollNet = 30 * time.Second
	// pollDeaf is the default of Config.PollInterval where LISTEN does not work.
	pollDeaf = time.Second
)

// listener is the one connection of a process that listens, for all queues.
//
// Of the processes that sleep on a queue one keeps the watch: it holds the queue's watch lock, which only one session can,
// and the sleeper's lock, shared. Senders that insert afterwards see the sleeper's lock and notify. Whoever inserted
// before holds the table's lock until its transaction ends; those are noted, and looked for until they have ended. So no
// message waits for the poll, and senders to a queue whose receivers are awake do not notify at all.
//
// The others stand by: they do not hear the senders, or every message would wake every process. Whoever is awake and has
// more than it can do gives up the watch, if it has it, and calls them. A watch whose process died is taken over by the
// first who tries, and each tries every standbyEvery.
type listener struct {
	run *runner

	mu        sync.Mutex
	connected bool               // and LISTEN was seen to work
	interrupt context.CancelFunc // of the wait
	poked     bool               // there is something to do
	sleepy    []*instance        // that want to sleep
	leaving   []leaver           // that have given up the watch, whose locks are to be released
	byChannel map[string]*instance
	tables    map[*instance]store.TableID
	delayed   string // channel of the delayed messages
	queues    string // channel of new queues

	watches map[*instance]bool            // has the watch lock
	asleep  map[*instance]bool            // has the sleeper's lock too
	standby map[*instance]bool            // sleeps without
	noted   map[*instance]map[string]bool // transactions that were writing when it fell asleep
	ready   map[*instance]chan struct{}   // closed when it may sleep
	calls   map[*instance]bool            // has more than it can do, and others are to be called
	called  time.Time                     // when they were last
	tried   time.Time                     // when those on standby last tried to take the watch
	changed bool                          // queues were made: see whether one of ours is another table now
	stale   bool                          // begin anew
}

// leaver is an instance that sleeps no more, and the locks that are to be released for it.
type leaver struct {
	in            *instance
	asleep, watch bool
}

// rest is how an instance sleeps.
type rest int

const (
	deaf     rest = iota // the listener is not connected: only polling helps
	watching             // senders notify it
	onCall               // another process is notified, and calls it when it has more than it can do
)

var errStale = errors.New("what to listen for has changed")

func newListener(r *runner) *listener {
	return &listener{run: r}
}

// listen keeps a connection until ctx ends.
func (l *listener) listen(ctx context.Context) {
	var retry backoff
	for ctx.Err() == nil {
		err := l.session(ctx, &retry)
		l.disconnected()
		l.run.restart()
		if ctx.Err() == nil && !errors.Is(err, errStale) {
			l.run.client.log.Warn("sqlq: not listening, polling until it works again", "err", err)
			retry.wait(ctx)
		}
	}
}

func (l *listener) session(ctx context.Context, retry *backoff) error {
	c, err := l.run.client.connect(ctx, forListening)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(closing)
	}()
	if err := l.subscribe(ctx, c); err != nil {
		return err
	}
	if err := l.selfTest(ctx, c); err != nil {
		return err
	}
	if err := l.run.client.store.LockAlive(ctx, c, l.run.numbers()); err != nil {
		return err
	}
	retry.reset()
	l.mu.Lock()
	l.connected = true
	l.mu.Unlock()
	for _, in := range l.run.instances {
		in.wake() // whatever was notified meanwhile went unheard
	}
	var look time.Duration
	poll := time.Now().Add(l.pollInterval())
	for {
		if err := l.serveRequests(ctx, c); err != nil {
			return err
		}
		if err := l.compare(ctx, c); err != nil {
			return err
		}
		if look, err = l.look(ctx, c, look); err != nil {
			return err
		}
		pause := time.Until(poll)
		if pause <= 0 {
			if err := l.poll(ctx, c); err != nil {
				return err
			}
			pause = l.pollInterval()
			poll = time.Now().Add(pause)
		}
		if look > 0 {
			pause = min(pause, look)
		}
		other, err := l.standBy(ctx, c)
		if err != nil {
			return err
		}
		pause = min(pause, other)
		if err := l.wait(ctx, c, pause); err != nil {
			return err
		}
	}
}

func (l *listener) pollInterval() time.Duration {
	if d := l.run.client.config.PollInterval; d > 0 {
		return d
	}
	return pollNet
}

// poll is the net under the wake-ups: one statement for all queues that sleep.
func (l *listener) poll(ctx context.Context, c *conn) error {
	l.mu.Lock()
	var ins []*instance
	var queues []string
	for in := range l.tables {
		if l.asleep[in] || l.standby[in] {
			ins, queues = append(ins, in), append(queues, in.endpoint.Name)
		}
	}
	l.mu.Unlock()
	if len(ins) == 0 {
		return nil
	}
	waiting, err := l.run.client.store.Waiting(ctx, c, queues)
	if err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	for i, in := range ins {
		if waiting[i] {
			in.mu.Lock()
			in.start.lastZero = time.Time{} // what was put left of the others is found too
			in.mu.Unlock()
			in.wake()
		}
	}
	l.mu.Lock()
	l.changed = true
	l.mu.Unlock()
	return nil
}

// compare begins anew when the queue of an instance is another table than it was: dropped and made again.
func (l *listener) compare(ctx context.Context, c *conn) error {
	l.mu.Lock()
	changed := l.changed
	l.changed = false
	l.mu.Unlock()
	if !changed {
		return nil
	}
	tables, err := l.run.client.store.ReadyTables(ctx, c, l.run.endpoints())
	if err != nil {
		return fmt.Errorf("compare the queues' tables: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, in := range l.run.instances {
		if tables[i] != l.tables[in] {
			return errStale
		}
	}
	return nil
}

// refresh has the listener begin anew: other tables, or other instance numbers.
func (l *listener) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = true
	l.poke()
}

// subscribe listens on the channels of all queues and of the delayed messages.
func (l *listener) subscribe(ctx context.Context, c *conn) error {
	st := l.run.client.store
	tables, byChannel := map[*instance]store.TableID{}, map[string]*instance{}
	sql := ""
	for _, in := range l.run.instances {
		table, err := st.ReadyTable(ctx, c, in.endpoint.Name)
		if sqlState(err) == undefinedTable {
			continue // dropped while we run; its receivers say so
		}
		if err != nil {
			return fmt.Errorf("find queue %q: %w", in.endpoint.Name, err)
		}
		tables[in], byChannel[table.Channel()], byChannel[table.StandbyChannel()] = table, in, in
		sql += "LISTEN " + table.StandbyChannel() + ";"
	}
	delayed, queues, err := st.Tables(ctx, c)
	if err != nil {
		return fmt.Errorf("find the delayed table: %w", err)
	}
	sql += "LISTEN " + delayed.Channel() + "; LISTEN " + queues.Channel()
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables, l.byChannel, l.delayed, l.queues = tables, byChannel, delayed.Channel(), queues.Channel()
	l.watches, l.asleep, l.standby, l.calls = map[*instance]bool{}, map[*instance]bool{}, map[*instance]bool{}, map[*instance]bool{}
	l.noted = map[*instance]map[string]bool{}
	return nil
}

// selfTest sees that a notification from another session arrives. Behind a transaction pooler LISTEN succeeds and
// nothing ever comes.
func (l *listener) selfTest(ctx context.Context, c *conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := l.run.client.store.Notify(ctx, l.run.client.pool, []string{l.delayed}); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("LISTEN succeeds but no notification arrives; is there a transaction pooler in between? %w", err)
		}
		l.notified(n.Channel)
		if n.Channel == l.delayed {
			return nil
		}
	}
}

// wait waits for a notification, a request, or the time to look again.
func (l *listener) wait(ctx context.Context, c *conn, pause time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	l.mu.Lock()
	if l.stale {
		l.stale = false
		l.mu.Unlock()
		return errStale
	}
	if l.poked || l.changed {
		l.poked = false
		l.mu.Unlock()
		return nil
	}
	l.interrupt = cancel
	l.mu.Unlock()
	n, err := c.WaitForNotification(waiting)
	l.mu.Lock()
	l.interrupt = nil
	l.mu.Unlock()
	switch {
	case err == nil:
		if n.PID != c.PgConn().PID() { // else it is this process's own call
			l.notified(n.Channel)
		}
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case waiting.Err() != nil && !c.IsClosed():
		return nil
	}
	return fmt.Errorf("wait for notifications: %w", err)
}

func (l *listener) notified(channel string) {
	l.mu.Lock()
	in, delayed := l.byChannel[channel], channel == l.delayed
	l.changed = l.changed || channel == l.queues
	l.mu.Unlock()
	if in != nil {
		in.wake()
	}
	if delayed {
		l.run.keeper.dueSoon()
	}
}

// wakeLocal wakes an instance of this process that sleeps on a channel; false where there is none, or where it would not
// fetch any more.
func (l *listener) wakeLocal(channel string) bool {
	if l.run.schedule.isDraining() {
		return false
	}
	l.mu.Lock()
	in := l.byChannel[channel]
	sleeps := in != nil && (l.asleep[in] || l.standby[in])
	delayed := channel == l.delayed
	l.mu.Unlock()
	if sleeps && in.hasRoom() && !l.run.schedule.isDraining() {
		in.wake()
		return true
	}
	return delayed && l.run.keeper.leadsNow() && l.run.keeper.dueSoon()
}

// sleep lets the instance sleep, and says how. When it returns watching, senders notify it from now on.
func (l *listener) sleep(ctx context.Context, in *instance) rest {
	l.mu.Lock()
	if !l.connected || l.tables[in] == 0 {
		l.mu.Unlock()
		return deaf
	}
	ready := make(chan struct{})
	if l.ready == nil {
		l.ready = map[*instance]chan struct{}{}
	}
	l.ready[in] = ready
	l.sleepy = append(l.sleepy, in)
	l.poke()
	l.mu.Unlock()
	select {
	case <-ready:
	case <-ctx.Done():
	}
	return l.rest(in)
}

// rest says how the instance would sleep now.
func (l *listener) rest(in *instance) rest {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.asleep[in]:
		return watching
	case l.standby[in]:
		return onCall
	}
	return deaf
}

// rouse spares the senders: the instance looks by itself for a while, and keeps the watch, so that nobody else does.
func (l *listener) rouse(in *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave(in, false)
}

// leave ends how the instance sleeps. From now on it does not count on being notified, although it may be for a moment.
func (l *listener) leave(in *instance, watch bool) {
	leaver := leaver{in: in, asleep: l.asleep[in], watch: watch && l.watches[in]}
	delete(l.standby, in)
	delete(l.asleep, in)
	delete(l.noted, in)
	if leaver.watch {
		delete(l.watches, in)
	}
	if l.connected && (leaver.asleep || leaver.watch) {
		l.leaving = append(l.leaving, leaver)
		l.poke()
	}
}

// overflow says that a fetch filled its batch: there may be more than the instance can do. It gives up the watch and
// calls others.
func (l *listener) overflow(in *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected {
		return
	}
	if l.watches[in] || l.standby[in] {
		defer in.wake() // it must not go on sleeping as if it still had the watch
	}
	l.leave(in, true)
	if !l.calls[in] {
		l.calls[in] = true
		l.poke()
	}
}

// standBy calls others where an instance has more than it can do, tries to take the watch for those on standby, and
// returns when to do so again.
func (l *listener) standBy(ctx context.Context, c *conn) (time.Duration, error) {
	now := time.Now()
	l.mu.Lock()
	var channels []string
	var ins []*instance
	pause := time.Hour
	if len(l.calls) > 0 {
		if pause = l.called.Add(callEvery).Sub(now); pause <= 0 {
			for in := range l.calls {
				channels = append(channels, l.tables[in].StandbyChannel())
			}
			clear(l.calls)
			l.called = now
			pause = time.Hour
		}
	}
	if len(l.standby) > 0 {
		next := l.tried.Add(standbyEvery).Sub(now)
		if next <= 0 {
			for in := range l.standby {
				ins = append(ins, in)
			}
			l.tried, next = now, standbyEvery
		}
		pause = min(pause, next)
	}
	l.mu.Unlock()
	if len(channels) > 0 {
		if err := l.run.client.store.Notify(ctx, c, channels); err != nil {
			return 0, fmt.Errorf("call other receivers: %w", err)
		}
	}
	if len(ins) > 0 {
		taken, err := l.takeWatch(ctx, c, ins)
		for _, in := range taken {
			in.wake() // it looks once more, and then keeps the watch
		}
		return pause, err
	}
	return pause, nil
}

// takeWatch tries to take the watch for instances, and returns those that have it.
func (l *listener) takeWatch(ctx context.Context, c *conn, ins []*instance) (taken []*instance, err error) {
	var without []*instance
	l.mu.Lock()
	for _, in := range ins {
		if l.watches[in] {
			taken = append(taken, in)
		} else {
			without = append(without, in)
		}
	}
	l.mu.Unlock()
	if len(without) == 0 {
		return taken, nil
	}
	granted, err := l.run.client.store.TakeWatch(ctx, c, l.tablesOf(without))
	if err != nil {
		return nil, fmt.Errorf("take the watch: %w", err)
	}
	var sql string
	l.mu.Lock()
	for i, in := range without {
		if granted[i] {
			l.watches[in] = true
			delete(l.standby, in)
			sql += "LISTEN " + l.tables[in].Channel() + ";"
			taken = append(taken, in)
		}
	}
	l.mu.Unlock()
	if sql != "" {
		// Committed before the sleeper's lock is taken: who sees that lock is heard.
		if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return taken, nil
}

// poke ends the wait, or keeps the next from beginning.
func (l *listener) poke() {
	l.poked = true
	if l.interrupt != nil {
		l.interrupt()
	}
}

// serveRequests gives up watches and takes them, and notes who was writing to the queues of those that fall asleep.
func (l *listener) serveRequests(ctx context.Context, c *conn) error {
	l.mu.Lock()
	sleepy, leaving := l.sleepy, l.leaving
	l.sleepy, l.leaving = nil, nil
	l.mu.Unlock()
	if err := l.release(ctx, c, leaving); err != nil {
		return err
	}
	if len(sleepy) == 0 {
		return nil
	}
	taken, err := l.takeWatch(ctx, c, sleepy)
	if err != nil {
		return err
	}
	var writers []store.Writer
	var fresh []*instance
	l.mu.Lock()
	for _, in := range taken {
		if !l.asleep[in] {
			fresh = append(fresh, in)
		}
	}
	l.mu.Unlock()
	if len(fresh) > 0 {
		b := &pgx.Batch{}
		l.run.client.store.SetAsleep(b, l.tablesOf(fresh))
		l.run.client.store.Writers(b, l.tablesOf(fresh), &writers)
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("take sleepers' locks: %w", err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range fresh {
		l.asleep[in] = true
		l.noted[in] = transactions(writers, l.tables[in])
	}
	for _, in := range sleepy {
		if !l.asleep[in] {
			l.standby[in] = true
		}
		close(l.ready[in])
		delete(l.ready, in)
	}
	return nil
}

// release gives locks back.
func (l *listener) release(ctx context.Context, c *conn, leaving []leaver) error {
	if len(leaving) == 0 {
		return nil
	}
	var asleep, watches []*instance
	for _, leaver := range leaving {
		if leaver.asleep {
			asleep = append(asleep, leaver.in)
		}
		if leaver.watch {
			watches = append(watches, leaver.in)
		}
	}
	b := &pgx.Batch{}
	if len(asleep) > 0 {
		l.run.client.store.SetAwake(b, l.tablesOf(asleep))
	}
	if len(watches) > 0 {
		l.run.client.store.LeaveWatch(b, l.tablesOf(watches))
	}
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("release the locks of sleepers: %w", err)
	}
	sql := ""
	for _, table := range l.tablesOf(watches) {
		sql += "UNLISTEN " + table.Channel() + ";"
	}
	if sql == "" {
		return nil
	}
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("unlisten: %w", err)
	}
	return nil
}

func (l *listener) tablesOf(ins []*instance) []store.TableID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var tables []store.TableID
	for _, in := range ins {
		tables = append(tables, l.tables[in])
	}
	return tables
}

func transactions(writers []store.Writer, table store.TableID) map[string]bool {
	found := map[string]bool{}
	for _, w := range writers {
		if w.Table == table {
			found[w.Transaction] = true
		}
	}
	return found
}

// look wakes instances for which a noted transaction has ended, and returns when to look again; 0: nothing to look for.
func (l *listener) look(ctx context.Context, c *conn, last time.Duration) (time.Duration, error) {
	l.mu.Lock()
	var ins []*instance
	for in, noted := range l.noted {
		if len(noted) > 0 {
			ins = append(ins, in)
		}
	}
	l.mu.Unlock()
	if len(ins) == 0 {
		return 0, nil
	}
	var writers []store.Writer
	b := &pgx.Batch{}
	l.run.client.store.Writers(b, l.tablesOf(ins), &writers)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		return 0, fmt.Errorf("look for writing transactions: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range ins {
		live := transactions(writers, l.tables[in])
		for tx := range l.noted[in] {
			if !live[tx] {
				delete(l.noted[in], tx)
				defer in.wake()
			}
		}
	}
	return min(max(2*last, lookAgainMin), lookAgainMax), nil
}

// disconnected forgets the locks, which the server has released, and has everybody poll.
func (l *listener) disconnected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected = false
	l.watches, l.asleep, l.standby, l.calls, l.noted = nil, nil, nil, nil, nil
	l.sleepy, l.leaving = nil, nil
	for in, ready := range l.ready {
		close(ready)
		delete(l.ready, in)
	}
	for _, in := range l.run.instances {
		in.wake()
	}
}
