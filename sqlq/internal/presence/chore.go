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

// newChores returns the chores. The first sweep is not at once: in a process that starts others are more urgent.
func (k *Keeper) newChores() []*chore {
	return []*chore{
		{what: "sweep expired messages", every: time.Minute, run: k.sweep, next: time.Now().Add(time.Minute)},
		{what: "read how much arrives in the queues", every: 10 * time.Second, run: k.readTraffic,
			optional: "so operators see no rates; grant it consumer again"},
		{what: "forget ids of handled messages that were kept for their time", every: time.Minute, run: k.rotateInbox,
			optional: "so they pile up; grant it consumer again"},
		{what: "remove archived messages", every: time.Hour, run: k.forgetArchived,
			optional: "so Config.KeepArchived has no effect while it leads; run the endpoints as the owner of the schema, or remove them as an operator: sqlq error delete --status archived --until 90d"},
		{what: "remove old records of operations", every: time.Hour, run: k.forgetHistory,
			optional: "so they pile up; grant it consumer again"},
	}
}

// doChores does, in the process that leads, the chores that are due.
func (k *Keeper) doChores(ctx context.Context) error {
	if !k.Leads() {
		k.sweeping.unswept = nil
		return nil
	}
	for _, c := range k.chores {
		now := time.Now()
		if c.off || now.Before(c.next) {
			continue
		}
		c.next = now.Add(c.every)
		again, err := c.run(ctx)
		if again != finished {
			c.next = time.Now().Add(again)
		}
		if c.optional != "" && session.State(err) == session.InsufficientPrivilege {
			c.off = true
			k.mayNot(c.what+", "+c.optional, err)
			continue
		}
		if err := k.goOn(err, c.what); err != nil {
			return err
		}
	}
	return nil
}

// chorePause returns how long the chores can wait for their next turn.
func (k *Keeper) chorePause() time.Duration {
	if len(k.sweeping.unswept) > 0 {
		return 10 * time.Millisecond
	}
	return time.Hour
}

// goOn says once of a chore that it fails because of what it works on, until it succeeds; other errors it returns.
func (k *Keeper) goOn(err error, what string) error {
	switch {
	case err == nil:
		delete(k.failing, what)
	case !isFaultOfWork(err):
		return fmt.Errorf("%s: %w", what, err)
	case !k.failing[what]:
		k.failing[what] = true
		k.Log.Warn("sqlq: cannot "+what+"; it is tried again", "err", err)
	}
	return nil
}

// mayNot says once that the role lacks a privilege that an endpoint can do without, and what follows.
func (k *Keeper) mayNot(what string, err error) {
	k.Log.Warn("sqlq: this role may not "+what, "schema", k.Store.Name(), "err", err)
}

// readTraffic takes a reading of how much arrives in the queues, from which the rates are made that operators see.
func (k *Keeper) readTraffic(ctx context.Context) (again time.Duration, err error) {
	err = k.bounded(ctx, func(tx pgx.Tx) error { return k.Store.ReadTraffic(ctx, tx) })
	if state := session.State(err); state == session.LockNotAvailable || state == session.ForeignKeyViolation {
		err = nil // somebody is dropping a queue, and the next reading will do
	}
	return finished, err
}
