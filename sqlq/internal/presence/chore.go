package presence

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// chore is a low-priority piece of housekeeping, which the process that leads does every so often.
type chore struct {
	what  string // it does, as the log says it
	every time.Duration
	// run does a bounded piece. again is the pause before the next one while there is more, else finished.
	run func(ctx context.Context) (again time.Duration, err error)
	// optional says how a role does without that lacks the privilege, which an older grant_role did not give; empty: it cannot.
	optional string

	next time.Time
	off  bool // the role lacks the privilege
}

// finished is returned by a chore that has nothing left to do until its next turn.
const finished time.Duration = -1

// chores are the chores of a Keeper, and how far those are that go on from where they were. Only its goroutine uses them.
type chores struct {
	keeper *Keeper
	all    []*chore

	sweeping   sweeping
	forgetting round
	archiving  round
	failing    map[string]bool // work that was said to fail
}

// newChores returns the chores. The first sweep is not at once: in a process that starts others are more urgent.
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

// run does, in the process that leads, the chores that are due.
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

// pause returns how long the chores can wait for their next turn.
func (c *chores) pause() time.Duration {
	if len(c.sweeping.unswept) > 0 {
		return 10 * time.Millisecond
	}
	return time.Hour
}

// goOn says once of a chore that it fails because of what it works on, until it succeeds; other errors it returns.
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

// readTraffic takes a reading of how much arrives in the queues, from which the rates are made that operators see.
func (c *chores) readTraffic(ctx context.Context) (again time.Duration, err error) {
	err = c.keeper.bounded(ctx, func(tx pgx.Tx) error { return c.keeper.Store.Queues.ReadTraffic(ctx, tx) })
	if state := session.State(err); state == session.LockNotAvailable || state == session.ForeignKeyViolation {
		err = nil // somebody is dropping a queue, and the next reading will do
	}
	return finished, err
}
