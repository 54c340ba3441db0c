// Package wakeup lets the endpoints of a process sleep and wakes them. One session listens for all of them, one of all processes
// keeps the watch over each queue, and polling is the safety net. All that it knows about an endpoint is in its Bell.
package wakeup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Listener is the one connection of a process that listens, for all queues. Its goroutine owns the session and everything that
// the session holds; others ask for a state and wait until it is reached. The goroutine never waits for a lock that
// others can hold for long. If it is slow in spite of that, endpoints poll by themselves.
type Listener struct {
	Config
	board
	silent    bool              // it was logged that LISTEN does not work
	pooled    atomic.Bool       // only polling is possible
	strangers session.Strangers // that hold locks which keep receivers from sleeping
	stoodBy   time.Time         // when endpoints on call last tried to take the watch
}

var errStale = errors.New("what to listen for has changed")

// Config is what a Listener works with. Its functions may be called from any goroutine.
type Config struct {
	Store     *store.Schema
	Pool      *pgxpool.Pool // the program's, for what the session cannot do
	Log       *slog.Logger
	Connector *session.Connector
	Outage    *session.Outage

	HasListenURL bool          // listening connections do not go where the pool's go
	PollInterval time.Duration // 0: the defaults
	StandbyEvery time.Duration // how often an endpoint on call tries to take the watch
	Rand         func() float64

	Lost            func()                                           // called when the connection was lost: the next one may reach another server
	ReadPaused      func(ctx context.Context, c *session.Conn) error // reads which queues are paused
	NotifyOtherwise func(channels []string)                          // notifies channels on another connection; does not wait

	Process      func() int32 // returns the number of the lock that shows that the process is alive; 0: it has none
	Leads        func() bool  // reports whether this process moves due messages
	DueSoon      func()       // called when a delayed message is due earlier than all others
	LeadIsVacant func()       // called when the leading process has stopped leading
}

// New returns a Listener, which does not listen yet.
func New(config Config) *Listener {
	return &Listener{Config: config, strangers: session.Strangers{Log: config.Log}}
}

// Listen maintains a connection until ctx ends.
func (l *Listener) Listen(ctx context.Context) {
	var retry session.Backoff
	for ctx.Err() == nil {
		err := l.session(ctx, &retry)
		l.disconnected()
		if ctx.Err() != nil {
			return // nothing was lost
		}
		l.Lost()
		if errors.Is(err, session.ErrPooled) {
			l.Outage.End(session.Listen, time.Now())
			l.onlyPoll(ctx)
			select { // the detection may be wrong, or the pooler may go away
			case <-ctx.Done():
			case <-time.After(lookForPooler):
			}
			continue
		}
		switch {
		case errors.Is(err, errStale):
		case l.Outage.Begin(session.Listen, err):
			l.Outage.Wait(ctx, &retry)
		default:
			l.Log.Warn("sqlq: not listening, polling until it works again", "err", err)
			l.silent = true
			retry.Wait(ctx)
		}
	}
}

// heard logs that LISTEN works: at the start, and when it had not worked before.
func (l *Listener) heard() {
	level := slog.LevelDebug
	if l.silent {
		level = slog.LevelInfo
	}
	l.silent = false
	l.pooled.Store(false)
	l.Log.Log(context.Background(), level, "sqlq: listening; senders wake the endpoints", "endpoints", namesOf(l.all()))
}

// session opens a connection that listens, tests it, and keeps it until it is lost. It returns the reason.
func (l *Listener) session(ctx context.Context, retry *session.Backoff) error {
	settingUp, cancel := context.WithTimeout(ctx, setUpWithin)
	defer cancel()
	c, err := l.Connector.Connect(settingUp, session.Listen)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		c.Close(closing)
	}()
	if c.Pooled {
		return session.ErrPooled
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
	retry.Reset()
	l.Outage.End(session.Listen, time.Now())
	l.heard()
	l.mu.Lock()
	l.connected = true
	l.changed = true // notifications about pauses may have been missed too
	l.mu.Unlock()
	for _, bell := range l.all() {
		bell.Ring(Called) // notifications in the meantime were missed
	}
	return l.attend(ctx, s)
}

// compare checks whether queues were paused or resumed, and starts over if the queue of an endpoint has another table than
// before, because it was dropped and created again.
func (l *Listener) compare(ctx context.Context, c *session.Conn) error {
	l.mu.Lock()
	changed := l.changed
	l.changed = false
	l.mu.Unlock()
	if !changed {
		return nil
	}
	if err := l.ReadPaused(ctx, c); session.State(err) == session.LockNotAvailable {
		time.AfterFunc(time.Second, l.registryChanged) // the registry is locked
		return nil
	} else if err != nil {
		return err
	}
	bells := l.enrolled()
	tables, err := l.Store.Tables.Ready(ctx, c, namesOf(bells))
	if err != nil {
		return fmt.Errorf("compare the queues' tables: %w", err)
	}
	for i, table := range l.tablesOf(bells) {
		if tables[i] != table {
			return errStale
		}
	}
	return nil
}

// subscribe listens for calls to all queues, for delayed messages, for a leader that steps down, and for new, paused and
// resumed queues.
func (l *Listener) subscribe(ctx context.Context, c *session.Conn) error {
	st, bells := l.Store, l.all()
	found, err := st.Tables.Ready(ctx, c, namesOf(bells))
	if err != nil {
		return fmt.Errorf("find the queues: %w", err)
	}
	delayed, queues, err := st.Tables.Shared(ctx, c)
	if err != nil {
		return fmt.Errorf("find the delayed table: %w", err)
	}
	sql := listenForCalls(found) + "LISTEN " + delayed.Channel() + "; LISTEN " + delayed.LeadChannel() + "; LISTEN " + queues.Channel()
	if _, err := c.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.mu.Lock()
	l.tables, l.posts, l.byChannel = map[*Bell]store.TableID{}, map[*Bell]*post{}, map[string]*Bell{}
	l.delayed, l.lead, l.queues = delayed.Channel(), delayed.LeadChannel(), queues.Channel()
	l.revised = true // bells may have come and gone since
	l.mu.Unlock()
	l.enrol(bells, found)
	return nil
}

// notifyFromElsewhere notifies the listening connection from another session: one of the program's pool or, if all of
// those are in use, a new one.
func (l *Listener) notifyFromElsewhere(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c, err := l.Pool.Acquire(soon); err == nil {
		defer c.Release()
		return l.Store.Wakeups.Notify(ctx, c, []string{l.delayed})
	}
	c, err := l.Connector.Connect(ctx, session.Listen)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return l.Store.Wakeups.Notify(ctx, c, []string{l.delayed})
}

// selfTest checks that a notification from another session arrives. Behind a transaction pooler that was not recognised as
// one, LISTEN succeeds and nothing ever arrives.
func (l *Listener) selfTest(ctx context.Context, c *session.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := l.notifyFromElsewhere(ctx); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("%w: %w", session.ErrDeaf, err)
		}
		if n == nil {
			continue // another notification arrived
		}
		l.notified(n.Channel)
		if n.Channel == l.delayed {
			return nil
		}
	}
}

// wait waits for a notification, for a request, or until it is time to look again.
func (l *Listener) wait(ctx context.Context, c *session.Conn, pause time.Duration) error {
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
		if n != nil && n.PID != c.PgConn().PID() { // otherwise it is this process's own call
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

func (l *Listener) notified(channel string) {
	l.mu.Lock()
	bell, delayed, vacant := l.byChannel[channel], channel == l.delayed, channel == l.lead
	l.changed = l.changed || channel == l.queues
	l.mu.Unlock()
	if bell != nil {
		bell.Ring(Notified)
	}
	if delayed {
		l.DueSoon()
	}
	if vacant {
		l.LeadIsVacant()
	}
}

// disconnected forgets the locks, which the server has released, and switches all endpoints to polling.
func (l *Listener) disconnected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected = false
	for _, p := range l.posts {
		p.wishFor(awake)
	}
	l.posts = nil
	for _, left := range l.leaving {
		close(left)
	}
	l.leaving = nil
	if len(l.wakes) > 0 {
		l.NotifyOtherwise(l.wakes)
		l.wakes = nil
	}
	for _, bell := range l.bells {
		bell.Ring(Called)
	}
}
