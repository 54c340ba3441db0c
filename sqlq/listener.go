package sqlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// listener is the one connection of a process that listens, for all queues. Its goroutine owns the session and all that
// the session holds; others say what they wish for and wait until it is so. The goroutine never waits for a lock that
// others can hold for long, and whenever it takes long all the same, instances poll by themselves.
type listener struct {
	run       *runner
	silent    bool        // it was said that LISTEN does not work
	pooled    atomic.Bool // nothing but polling is possible
	strangers strangers   // with locks that keep receivers from sleeping

	mu        sync.Mutex
	connected bool               // and LISTEN was seen to work
	round     int                // the number of the round under way; 0: none, it waits
	rounds    int                // the number of the last round
	late      bool               // the round under way takes so long that nobody may rely on it
	wakes     []string           // channels to be notified
	interrupt context.CancelFunc // of the wait
	poked     bool               // there is something to do
	byChannel map[string]*instance
	tables    map[*instance]store.TableID
	posts     map[*instance]*post
	delayed   string    // channel of the delayed messages
	lead      string    // channel of the processes that lead no more
	queues    string    // channel of the registry: new, paused and resumed queues
	stoodBy   time.Time // when those on call last tried to take the watch
	changed   bool      // queues were made, paused or resumed: see what that is to ours
	stale     bool      // begin anew
}

// errDeaf is why a session that could listen is not relied upon.
var errDeaf = errors.New("LISTEN succeeds but no notification arrives; is there a transaction pooler in between?")

var errStale = errors.New("what to listen for has changed")

func newListener(r *runner) *listener {
	return &listener{run: r, strangers: strangers{log: r.client.log}}
}

// listen keeps a connection until ctx ends.
func (l *listener) listen(ctx context.Context) {
	var retry backoff
	for ctx.Err() == nil {
		err := l.session(ctx, &retry)
		l.disconnected()
		if ctx.Err() != nil {
			return // nothing was lost
		}
		l.run.restart()
		if errors.Is(err, errPooled) {
			l.run.outage.ends(forListening)
			l.onlyPoll(ctx)
			select { // it may have been mistaken, or be taken away
			case <-ctx.Done():
			case <-time.After(lookForPooler):
			}
			continue
		}
		switch {
		case errors.Is(err, errStale):
		case l.run.outage.begins(forListening, err):
			l.run.outage.wait(ctx, &retry)
		default:
			l.run.client.log.Warn("sqlq: not listening, polling until it works again", "err", err)
			l.silent = true
			retry.wait(ctx)
		}
	}
}

// heard says that LISTEN works: at the beginning, and when it did not.
func (l *listener) heard() {
	level := slog.LevelDebug
	if l.silent {
		level = slog.LevelInfo
	}
	l.silent = false
	l.pooled.Store(false)
	l.run.client.log.Log(context.Background(), level, "sqlq: listening; senders wake the endpoints", "endpoints", l.run.endpoints())
}

// session makes a connection that listens, tests it, and keeps it until it is lost. Then it returns why.
func (l *listener) session(ctx context.Context, retry *backoff) error {
	settingUp, cancel := context.WithTimeout(ctx, setUpWithin)
	defer cancel()
	c, err := l.run.client.connect(settingUp, forListening)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(closing)
	}()
	if c.pooled {
		return errPooled
	}
	if err := store.SetSession(settingUp, c, []string{"lock_timeout"}, []string{listenerLocks}); err != nil {
		return fmt.Errorf("set up the connection: %w", err)
	}
	if err := l.subscribe(settingUp, c); err != nil {
		return err
	}
	if err := l.selfTest(settingUp, c); err != nil {
		return err
	}
	s := &listening{c: c, poll: time.Now().Add(l.pollInterval())}
	if err := l.holdAlive(settingUp, s); err != nil {
		return err
	}
	retry.reset()
	l.run.outage.ends(forListening)
	l.heard()
	l.mu.Lock()
	l.connected = true
	l.changed = true // what was notified before goes for pauses too
	l.mu.Unlock()
	for _, in := range l.run.instances {
		in.wake() // whatever was notified meanwhile went unheard
	}
	return l.attend(ctx, s)
}

// compare looks whether queues were paused or resumed, and begins anew when the queue of an instance is another table than
// it was: dropped and made again.
func (l *listener) compare(ctx context.Context, c *conn) error {
	l.mu.Lock()
	changed := l.changed
	l.changed = false
	l.mu.Unlock()
	if !changed {
		return nil
	}
	if err := l.run.readPaused(ctx, c); sqlState(err) == lockNotAvailable {
		time.AfterFunc(time.Second, l.registryChanged) // somebody has locked the registry
		return nil
	} else if err != nil {
		return err
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

// registryChanged has the listener compare.
func (l *listener) registryChanged() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = true
	l.poke()
}

// refresh has the listener begin anew: other tables, or other instance numbers.
func (l *listener) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = true
	l.poke()
}

// subscribe listens for calls to all queues, for delayed messages, for the end of whoever leads, and for new, paused and
// resumed queues.
func (l *listener) subscribe(ctx context.Context, c *conn) error {
	st := l.run.client.store
	tables, posts, byChannel := map[*instance]store.TableID{}, map[*instance]*post{}, map[string]*instance{}
	sql := ""
	found, err := st.ReadyTables(ctx, c, l.run.endpoints())
	if err != nil {
		return fmt.Errorf("find the queues: %w", err)
	}
	for i, in := range l.run.instances {
		table := found[i]
		if table == 0 {
			continue // dropped while we run; its receivers say so
		}
		tables[in], posts[in] = table, &post{in: in}
		byChannel[table.Channel()], byChannel[table.CallChannel()] = in, in
		sql += "LISTEN " + table.CallChannel() + ";"
	}
	delayed, queues, err := st.Tables(ctx, c)
	if err != nil {
		return fmt.Errorf("find the delayed table: %w", err)
	}
	sql += "LISTEN " + delayed.Channel() + "; LISTEN " + delayed.LeadChannel() + "; LISTEN " + queues.Channel()
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables, l.posts, l.byChannel = tables, posts, byChannel
	l.delayed, l.lead, l.queues = delayed.Channel(), delayed.LeadChannel(), queues.Channel()
	return nil
}

// notifyFromElsewhere notifies the listening connection from another session: one of the program's pool, or, where the program
// has them all in use, one of its own.
func (l *listener) notifyFromElsewhere(ctx context.Context) error {
	client := l.run.client
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c, err := client.pool.Acquire(soon); err == nil {
		defer c.Release()
		return client.store.Notify(ctx, c, []string{l.delayed})
	}
	c, err := client.connect(ctx, forListening)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return client.store.Notify(ctx, c, []string{l.delayed})
}

// selfTest sees that a notification from another session arrives. Behind a transaction pooler that was not recognised as
// one LISTEN succeeds and nothing ever comes.
func (l *listener) selfTest(ctx context.Context, c *conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := l.notifyFromElsewhere(ctx); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", errDeaf, err)
		}
		if n == nil {
			continue // something else arrived
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
	if l.poked || l.changed || len(l.wakes) > 0 {
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
		if n != nil && n.PID != c.PgConn().PID() { // else it is this process's own call
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
	in, delayed, vacant := l.byChannel[channel], channel == l.delayed, channel == l.lead
	l.changed = l.changed || channel == l.queues
	l.mu.Unlock()
	if in != nil {
		in.mu.Lock()
		in.done.Wakes++
		in.mu.Unlock()
		in.wake()
		in.client.config.observing.woken(in, WokenByNotification)
	}
	if delayed {
		l.run.keeper.dueSoon()
	}
	if vacant {
		l.run.keeper.leadIsVacant()
	}
}

// poke ends the wait, or keeps the next from beginning.
func (l *listener) poke() {
	l.poked = true
	if l.interrupt != nil {
		l.interrupt()
	}
}

// hears reports whether the listener is connected, so that others can tell it something.
func (l *listener) hears() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected && !l.late
}

// disconnected forgets the locks, which the server has released, and has everybody poll.
func (l *listener) disconnected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected = false
	for _, p := range l.posts {
		p.wishFor(awake)
	}
	l.posts = nil
	if len(l.wakes) > 0 {
		l.run.client.wakes.ask(l.wakes)
		l.wakes = nil
	}
	for _, in := range l.run.instances {
		in.wake()
	}
}
