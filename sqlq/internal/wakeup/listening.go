package wakeup

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// Time limits of the listener's work between two waits.
const (
	// listenerLate is the time after which endpoints no longer rely on a round of the listener, and poll until it has ended.
	listenerLate = time.Second
	// listenerLost is the time after which its connection is given up.
	listenerLost = 10 * time.Second
	// setUpWithin limits the opening of the connection, and everything before it can be relied on.
	setUpWithin = time.Minute
	// listenerLocks is how long the session waits for a lock on a table, in the server's notation.
	listenerLocks = "100ms"
)

// listening is a listening session, used only by the listener's goroutine.
type listening struct {
	c     *session.Conn
	poll  time.Time     // when to poll next
	look  time.Duration // the last pause between checks of writing transactions; 0: there were none to check
	alive bool          // it holds the lock that shows that the process is alive
	tried time.Time     // when it last tried to take that lock
}

// attend does what endpoints and senders ask for, on a listening session, until it is lost.
func (l *Listener) attend(ctx context.Context, s *listening) error {
	for {
		pause, err := l.bounded(ctx, s)
		if err != nil {
			return err
		}
		if err := l.wait(ctx, s.c, pause); err != nil {
			return err
		}
	}
}

// bounded runs a round. If it takes too long, endpoints poll instead of relying on it, and finally it loses the
// connection.
func (l *Listener) bounded(ctx context.Context, s *listening) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, listenerLost)
	defer cancel()
	l.mu.Lock()
	l.rounds++
	l.round = l.rounds
	this := l.round
	l.mu.Unlock()
	alarm := time.AfterFunc(listenerLate, func() { l.beLate(this) })
	pause, err := l.makeRound(ctx, s)
	alarm.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.round = 0
	if l.late {
		l.late = false
		for _, bell := range l.bells {
			defer bell.Ring(Called) // so that it relies on the listener again
		}
	}
	return pause, err
}

// beLate switches all endpoints to polling, and notifications to other connections, until a round ends.
func (l *Listener) beLate(round int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.round != round {
		return
	}
	l.late = true
	for _, p := range l.posts {
		p.answer()
	}
	for _, bell := range l.bells {
		defer bell.Ring(Called)
	}
	if len(l.wakes) > 0 {
		l.NotifyOtherwise(l.wakes)
		l.wakes = nil
	}
}

// makeRound does everything there is to do, and returns how long to wait afterwards. The poll comes first, because it is the safety net for the rest.
func (l *Listener) makeRound(ctx context.Context, s *listening) (pause time.Duration, err error) {
	if time.Until(s.poll) <= 0 {
		if err := l.poll(ctx, s.c); err != nil {
			return 0, err
		}
		s.poll = time.Now().Add(l.pollInterval())
	}
	if err := l.revise(ctx, s.c); err != nil {
		return 0, err
	}
	if err := l.sendWakes(ctx, s.c); err != nil {
		return 0, err
	}
	again, err := l.grant(ctx, s.c)
	if err != nil {
		return 0, err
	}
	if err := l.compare(ctx, s.c); err != nil {
		return 0, err
	}
	if s.look, err = l.look(ctx, s.c, s.look); err != nil {
		return 0, err
	}
	called, err := l.callOthers(ctx, s.c)
	if err != nil {
		return 0, err
	}
	stoodBy, err := l.standBy(ctx, s.c)
	if err != nil {
		return 0, err
	}
	told, err := l.tellOfStrangers(ctx, s)
	if err != nil {
		return 0, err
	}
	pause = min(time.Until(s.poll), again, called, stoodBy, told)
	if s.look > 0 {
		pause = min(pause, s.look)
	}
	if !s.alive && l.Process() != 0 {
		pause = min(pause, aliveAgain)
		if time.Since(s.tried) >= aliveAgain {
			return pause, l.holdAlive(ctx, s)
		}
	}
	return pause, nil
}

// aliveAgain is the pause between attempts to take the lock that shows that the process is alive.
const aliveAgain = time.Second

// holdAlive tries to take the lock that shows that the process is alive, if it has one.
func (l *Listener) holdAlive(ctx context.Context, s *listening) (err error) {
	s.tried = time.Now()
	if process := l.Process(); process != 0 && !s.alive {
		if s.alive, err = l.Store.Instances.TryAlive(ctx, s.c, process); err != nil {
			return fmt.Errorf("take the lock that shows that the process is alive: %w", err)
		}
	}
	return nil
}
