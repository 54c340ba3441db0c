package presence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// lateness is how overdue a delayed message must be before a process that does not lead moves it.
	lateness = 2 * time.Second
	// moveOverlap is how far before the last moved message the next look begins: a message that commits later may be due earlier.
	moveOverlap = 200 * time.Millisecond
	// apartPause and apartPauseMost are how long a queue whose messages cannot be moved is left alone, at first and at most.
	apartPause, apartPauseMost = time.Second, 30 * time.Second
)

// mover is the state of moving due messages, which is done in rounds over all queues. A queue that takes
// more than its share, because its messages are large, slow to move or cannot be moved at all, is put apart: it then gets rounds
// of its own, alternating with those of all others.
type mover struct {
	keeper *Keeper
	round  round
	moved  time.Time // due time of the last message moved
	looked time.Time // when it last looked from the start
	apart  map[string]*apart
}

// apart is a queue whose due messages are moved separately, until none are due.
type apart struct {
	round
	next  time.Time     // not to be tried before
	pause time.Duration // after the last failure
}

func newMover(k *Keeper) *mover {
	return &mover{keeper: k, round: wholeRound(roundRows), apart: map[string]*apart{}}
}

// moveDue moves due messages, in the leading process, and returns when to look again.
func (m *mover) moveDue(ctx context.Context) (time.Duration, error) {
	if !m.keeper.Leads() {
		return time.Hour, nil
	}
	began, from := time.Now(), m.moved.Add(-moveOverlap)
	if time.Since(m.looked) >= time.Second {
		from = time.Time{}
		m.looked = time.Now()
	}
	for {
		pause, err := m.moveOthers(ctx, from)
		if err != nil {
			return 0, err
		}
		pauseApart, err := m.moveApart(ctx)
		if err != nil {
			return 0, err
		}
		if pause = min(pause, pauseApart); pause > 0 {
			return pause, nil
		}
		if time.Since(began) > min(time.Second, m.keeper.choreWithin()) {
			return 0, nil // there is more, and the heartbeat may be due
		}
	}
}

// moveOthers moves a round of due messages of the queues that are not apart, and returns when to look again: 0 if there may
// be more.
func (m *mover) moveOthers(ctx context.Context, from time.Time) (pause time.Duration, err error) {
	aside := slices.Sorted(maps.Keys(m.apart))
	next, queue, any, err := m.keeper.Store.Delayed.NextDue(ctx, m.keeper.conn, from, aside)
	switch {
	case err != nil:
		return 0, fmt.Errorf("look for the next due message: %w", err)
	case !any:
		return time.Second, nil
	case next > 0:
		return min(next, time.Second), nil
	}
	began := time.Now()
	moved, err := m.moveRound(ctx, from, m.round, aside, false)
	if isFaultOfWork(err) || err != nil && ctx.Err() != nil { // the queue at fault is unknown: try the first, then the next
		m.round.shrink()
		m.apart[queue] = &apart{round: firstRound()}
	}
	if err != nil {
		return 0, unlessOfWork(err)
	}
	m.round.took(time.Since(began), m.keeper.choreWithin())
	n, more := 0, false
	for _, q := range moved {
		n += q.N
		more = more || q.More
		if q.LastDue.After(m.moved) && q.N > 0 {
			m.moved = q.LastDue
		}
		if q.N == 0 { // its table is locked
			m.apart[q.Queue] = &apart{round: firstRound()}
			m.leaveFor(q.Queue, errTableLocked)
		}
	}
	if more { // more than the bytes allow: the other queues must not wait for the largest
		largest := slices.MaxFunc(moved, func(a, b store.Moved) int { return cmp.Compare(a.Bytes, b.Bytes) })
		if m.apart[largest.Queue] == nil {
			m.apart[largest.Queue] = &apart{round: wholeRound(roundRows)}
		}
	}
	if len(moved) == 0 {
		return time.Second / 10, nil // other sessions hold what is due
	}
	return 0, nil
}

// moveApart moves a round of due messages of the apart queue that has waited longest, and returns when such a queue can be tried
// again: 0 if there may be more.
func (m *mover) moveApart(ctx context.Context) (pause time.Duration, err error) {
	var queue string
	var a *apart
	for name, other := range m.apart {
		if a == nil || other.next.Before(a.next) {
			queue, a = name, other
		}
	}
	if a == nil {
		return time.Second, nil
	}
	if wait := time.Until(a.next); wait > 0 {
		return min(wait, time.Second), nil
	}
	began := time.Now()
	a.next = began
	moved, err := m.moveRound(ctx, time.Time{}, a.round, []string{queue}, true)
	switch {
	case isFaultOfWork(err) && a.isLeast():
		m.leaveFor(queue, err)
	case isFaultOfWork(err):
		a.shrink()
	case err != nil:
		return 0, err
	case len(moved) > 0 && moved[0].N == 0:
		m.leaveFor(queue, errTableLocked)
	case len(moved) == 0 || !moved[0].More && moved[0].N < a.rows:
		delete(m.apart, queue)
	default:
		a.pause = 0
		a.took(time.Since(began), m.keeper.choreWithin())
	}
	return 0, nil
}

// errTableLocked is a reason to leave the messages of a queue alone for a while.
var errTableLocked = errors.New("another session has held a lock on the queue's table for long")

// leaveFor leaves the due messages of an apart queue alone for a while, longer each time, and logs that the first time.
func (m *mover) leaveFor(queue string, why error) {
	a := m.apart[queue]
	if a.pause == 0 {
		m.keeper.Log.Warn("sqlq: due messages of a queue cannot be moved; they are tried again, and other queues go on", "queue", queue, "err", why)
	}
	a.pause = min(max(2*a.pause, apartPause), apartPauseMost)
	a.next = time.Now().Add(a.pause)
}

// moveRound moves due messages from a due time on: those of all queues except some or, if apart is set, those of these queues only.
func (m *mover) moveRound(ctx context.Context, from time.Time, r round, queues []string, apart bool) (moved []store.Moved, err error) {
	err = m.keeper.bounded(ctx, func(tx pgx.Tx) (err error) {
		moved, err = m.keeper.Store.Delayed.MoveDue(ctx, tx, from, r.rows, r.bytes, queues, apart)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("move due messages: %w", err)
	}
	var channels []string
	for _, m := range moved {
		channels = append(channels, m.Channel)
	}
	m.keeper.Wake(channels...)
	return moved, nil
}

// DueSoon makes the mover look at once.
func (k *Keeper) DueSoon() { k.nudge() }

// nudge ends the current pause, or else the next one as soon as it begins.
func (k *Keeper) nudge() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}
