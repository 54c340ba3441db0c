package wakeup

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// Bounds of what the listener does with its session between two waits.
const (
	// listenerLate is after how long endpoints no longer rely on the listener, and poll until it has come back.
	listenerLate = time.Second
	// listenerLost is after how long its connection is given up.
	listenerLost = 10 * time.Second
	// setUpWithin bounds the making of the connection, and what comes before it is relied on.
	setUpWithin = time.Minute
	// listenerLocks is how long the session waits for a lock on a table, as the server writes it.
	listenerLocks = "100ms"
)

// listening is a session that listens, as its goroutine sees it.
type listening struct {
	c     *session.Conn
	poll  time.Time     // when to poll next
	look  time.Duration // the last pause between looks for writing transactions; 0: none was looked for
	alive bool          // it holds the lock that shows that the process lives
	tried time.Time     // when it last tried to take that
}

// attend does on a session that listens what endpoints wish for and senders ask for, until it is lost.
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

// bounded makes a round. While it takes too long, endpoints poll instead of relying on it, and in the end it loses the
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
			defer bell.Ring(Called) // to rely on it again
		}
	}
	return pause, err
}

// beLate switches all endpoints to polling, and notify by other means, until a round ends.
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

// makeRound does all there is to do, and returns for how long to wait then. The poll comes first: it is the net under the rest.
func (l *Listener) makeRound(ctx context.Context, s *listening) (pause time.Duration, err error) {
	if time.Until(s.poll) <= 0 {
		if err := l.poll(ctx, s.c); err != nil {
			return 0, err
		}
		s.poll = time.Now().Add(l.pollInterval())
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

// aliveAgain is the pause between attempts to take the lock that shows that the process lives.
const aliveAgain = time.Second

// holdAlive tries to take the lock that shows that the process lives, if it has one.
func (l *Listener) holdAlive(ctx context.Context, s *listening) (err error) {
	s.tried = time.Now()
	if process := l.Process(); process != 0 && !s.alive {
		if s.alive, err = l.Store.Instances.TryAlive(ctx, s.c, process); err != nil {
			return fmt.Errorf("show that the process lives: %w", err)
		}
	}
	return nil
}
