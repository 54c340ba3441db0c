package presence

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// chore is a low-priority piece of housekeeping, which the leading process does every so often.
type chore struct {
	what  string // what it does, for the log
	every time.Duration
	// run does a bounded piece. again is the pause before the next piece, or finished if there is none.
	run func(ctx context.Context) (again time.Duration, err error)
	// optional says what follows if the role lacks the privilege, which an older grant_role did not give; empty: it needs it.
	optional string

	next time.Time
	off  bool // the role lacks the privilege
}

// finished is returned by a chore that has nothing left to do until its next turn.
const finished time.Duration = -1

// chores are the chores of a Keeper, and the progress of those that continue where they stopped. Only its goroutine uses them.
type chores struct {
	keeper *Keeper
	all    []*chore

	sweeping   sweeping
	forgetting round
	archiving  round
	failing    map[string]bool // work whose failure was logged
}

// newChores returns the chores. The first sweep is not immediate: a starting process has more urgent work.
func newChores(k *Keeper) *chores {
	c := &chores{keeper: k, sweeping: newSweeping(), forgetting: wholeRound(forgetRows), archiving: wholeRound(forgetRows), failing: map[string]bool{}}
	c.all = []*chore{
		{what: "sweep expired messages", every: time.Minute, run: c.sweep, next: time.Now().Add(time.Minute)},
		{what: "read how much arrives in the queues", every: 10 * time.Second, run: c.readTraffic,
			optional: "so operators see no rates; grant it consumer again"},
		{what: "forget ids of handled messages that were kept for their time", every: time.Minute, run: c.rotateInbox,
			optional: "so they pile up; grant it consumer again"},
		{what: "remove archived messages", every: time.Hour, run: c.forgetArchived,
			optional: "so Config.KeepArchived has no effect while it leads; run the endpoints as the owner of the schema, or remove them as an operator: sqlq error delete --status archived --until 90d"},
		{what: "remove old records of operations", every: time.Hour, run: c.forgetHistory,
			optional: "so they pile up; grant it consumer again"},
	}
	return c
}

// run does the chores that are due, in the leading process.
func (c *chores) run(ctx context.Context) error {
	if !c.keeper.Leads() {
		c.sweeping.unswept = nil
		return nil
	}
	for _, one := range c.all {
		now := time.Now()
		if one.off || now.Before(one.next) {
			continue
		}
		one.next = now.Add(one.every)
		again, err := one.run(ctx)
		if again != finished {
			one.next = time.Now().Add(again)
		}
		if one.optional != "" && session.State(err) == session.InsufficientPrivilege {
			one.off = true
			c.keeper.mayNot(one.what+", "+one.optional, err)
			continue
		}
		if err := c.goOn(err, one.what); err != nil {
			return err
		}
	}
	return nil
}

// pause returns how long to wait until the next chore is due.
func (c *chores) pause() time.Duration {
	if len(c.sweeping.unswept) > 0 {
		return 10 * time.Millisecond
	}
	return time.Hour
}

// goOn logs, once until it succeeds, that a chore fails because of what it works on; it returns other errors.
func (c *chores) goOn(err error, what string) error {
	switch {
	case err == nil:
		delete(c.failing, what)
	case !isFaultOfWork(err):
		return fmt.Errorf("%s: %w", what, err)
	case !c.failing[what]:
		c.failing[what] = true
		c.keeper.Log.Warn("sqlq: cannot "+what+"; it is tried again", "err", err)
	}
	return nil
}

// readTraffic records how many messages have arrived in the queues, from which operators see rates.
func (c *chores) readTraffic(ctx context.Context) (again time.Duration, err error) {
	err = c.keeper.bounded(ctx, func(tx pgx.Tx) error { return c.keeper.Store.Queues.ReadTraffic(ctx, tx) })
	if state := session.State(err); state == session.LockNotAvailable || state == session.ForeignKeyViolation {
		err = nil // a queue is being dropped; the next reading will do
	}
	return finished, err
}
