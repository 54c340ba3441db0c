package presence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// sweepEvery is the pause between sweeps for expired messages, sweepRows how many rows of a queue one reads, and sweepFor how
	// long it goes on before other work has its turn.
	sweepEvery, sweepRows, sweepFor = time.Minute, 20_000, 100 * time.Millisecond
	// trafficEvery is the pause between readings of how much arrives in the queues.
	trafficEvery = 10 * time.Second
	// rotateEvery is the pause between looks whether ids in the inbox have been kept for their time, and sweepAgain the pause
	// while there are more to be deleted from one that cannot be emptied.
	rotateEvery, sweepAgain = time.Minute, time.Second
	// forgetEvery is the pause between looks for records of operations that are too old to be kept, forgetRows how many one
	// transaction removes, and forgetAgain the pause while there are more.
	forgetEvery, forgetRows, forgetAgain = time.Hour, 1_000, time.Second
)

// upkeep is when the leading process does next what has no hurry.
type upkeep struct {
	sweep, traffic, rotate, forget, archived time.Time

	unswept []string         // queues that the sweep under way has still to look at
	upTo    map[string]int64 // where the sweep of each queue goes on
	pieces  map[string]round // of queues in which a whole piece took too long

	forgetting, archiving round

	failing map[string]bool // chores that were said to fail

	mayNotRead, mayNotRotate, mayNotForget, mayNotDelete bool // the role lacks the privilege: it was granted by an older grant_role
}

func newUpkeep() upkeep {
	return upkeep{sweep: time.Now().Add(sweepEvery), upTo: map[string]int64{}, pieces: map[string]round{}, forgetting: wholeRound(forgetRows), archiving: wholeRound(forgetRows), failing: map[string]bool{}}
}

// pause returns how long the upkeep can wait for its next turn.
func (u *upkeep) pause() time.Duration {
	if len(u.unswept) > 0 {
		return 10 * time.Millisecond
	}
	return time.Hour
}

// keepUp does, in the process that leads, what is due of the upkeep: each a bounded piece.
func (k *Keeper) keepUp(ctx context.Context) error {
	u := &k.upkeep
	if !k.Leads() {
		u.unswept = nil
		return nil
	}
	now := time.Now()
	if now.After(u.sweep) || len(u.unswept) > 0 {
		if err := k.sweep(ctx); err != nil {
			return err
		}
	}
	if now.After(u.traffic) && !u.mayNotRead {
		u.traffic = now.Add(trafficEvery)
		if err := k.readTraffic(ctx); err != nil {
			return err
		}
	}
	if now.After(u.rotate) && !u.mayNotRotate {
		u.rotate = now.Add(rotateEvery)
		if err := k.rotateInbox(ctx); err != nil {
			return err
		}
	}
	if now.After(u.archived) {
		u.archived = now.Add(forgetEvery)
		if err := k.forgetArchived(ctx); err != nil {
			return err
		}
	}
	if now.After(u.forget) && !u.mayNotForget {
		u.forget = now.Add(forgetEvery)
		return k.forgetHistory(ctx)
	}
	return nil
}

// sweep removes expired messages, a piece of each queue, and records of instances that ended long ago. It stops after a while
// and goes on from there with the next call, so that it comes to the end of the queues however many there are.
func (k *Keeper) sweep(ctx context.Context) error {
	st, u := k.Store, &k.upkeep
	if len(u.unswept) == 0 {
		queues, err := st.QueueNames(ctx, k.conn)
		if err != nil {
			return fmt.Errorf("sweep expired messages: %w", err)
		}
		gone := func(queue string) bool { return !slices.Contains(queues, queue) }
		maps.DeleteFunc(u.upTo, func(queue string, _ int64) bool { return gone(queue) })
		maps.DeleteFunc(u.pieces, func(queue string, _ round) bool { return gone(queue) })
		u.sweep, u.unswept = time.Now().Add(sweepEvery), queues
	}
	for began := time.Now(); len(u.unswept) > 0; {
		queue := u.unswept[0]
		again, err := k.sweepPiece(ctx, queue)
		if err != nil {
			return fmt.Errorf("sweep expired messages of queue %q: %w", queue, err)
		}
		if u.unswept = u.unswept[1:]; again {
			u.unswept = append(u.unswept, queue)
		}
		if len(u.unswept) > 0 && time.Since(began) > sweepFor {
			return nil
		}
	}
	if err := st.ForgetInstances(ctx, k.conn); err != nil {
		return fmt.Errorf("forget ended instances: %w", err)
	}
	return nil
}

// SweepOnce connects and makes one whole sweep, as the process that leads does, in turns that may each take no longer than within.
// It is for tests.
func (k *Keeper) SweepOnce(ctx context.Context, within time.Duration) error {
	if err := k.connect(ctx); err != nil {
		return err
	}
	defer k.disconnect()
	for turn := true; turn; turn = len(k.upkeep.unswept) > 0 {
		bounded, cancel := context.WithTimeout(ctx, within)
		err := k.sweep(bounded)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepPiece removes the expired messages of a piece of a queue, and reports whether there are more in that piece.
func (k *Keeper) sweepPiece(ctx context.Context, queue string) (again bool, err error) {
	u := &k.upkeep
	piece, small := u.pieces[queue]
	if !small {
		piece = wholeRound(sweepRows)
	}
	began := time.Now()
	var swept store.Swept
	err = k.chore(ctx, func(tx pgx.Tx) (err error) {
		swept, err = k.Store.SweepExpired(ctx, tx, queue, u.upTo[queue], piece.rows, piece.bytes)
		return err
	})
	switch state := session.State(err); {
	case state == session.UndefinedTable || state == session.LockNotAvailable: // it has been dropped, or somebody has it for long
		return false, nil
	case isFaultOfWork(err):
		if piece.isLeast() {
			return false, k.goOn(err, "sweep expired messages of queue "+queue)
		}
		piece.shrink()
		u.pieces[queue] = piece
		return true, nil
	case err != nil:
		return false, err
	}
	u.upTo[queue] = swept.UpTo
	if swept.Removed > 0 {
		k.Log.Info("sqlq: removed messages whose time to live had passed before anybody received them", "queue", queue, "messages", swept.Removed)
	}
	piece.took(time.Since(began), k.choreWithin())
	if delete(u.pieces, queue); piece.rows < piece.full {
		u.pieces[queue] = piece
	}
	return swept.More, nil
}

// readTraffic takes a reading of how much arrives in the queues, from which the rates are made that operators see.
func (k *Keeper) readTraffic(ctx context.Context) error {
	const what = "read how much arrives in the queues"
	err := k.chore(ctx, func(tx pgx.Tx) error { return k.Store.ReadTraffic(ctx, tx) })
	err = k.goWithout(err, &k.upkeep.mayNotRead, what+", so operators see no rates")
	if state := session.State(err); state == session.LockNotAvailable || state == session.ForeignKeyViolation { // somebody is dropping a queue, and the next reading will do
		return nil
	}
	return k.goOn(err, what)
}

// goOn says once of a chore that it fails because of what it works on, until it succeeds; other errors it returns.
func (k *Keeper) goOn(err error, what string) error {
	switch {
	case err == nil:
		delete(k.upkeep.failing, what)
	case !isFaultOfWork(err):
		return fmt.Errorf("%s: %w", what, err)
	case !k.upkeep.failing[what]:
		k.upkeep.failing[what] = true
		k.Log.Warn("sqlq: cannot "+what+"; it is tried again", "err", err)
	}
	return nil
}

// rotateInbox forgets ids of handled messages that were kept for their time.
func (k *Keeper) rotateInbox(ctx context.Context) error {
	done, err := k.Store.RotateInbox(ctx, k.conn)
	err = k.goWithout(err, &k.upkeep.mayNotRotate, "forget ids of handled messages that were kept for their time, so they pile up")
	if err != nil && session.State(err) != session.LockNotAvailable { // else a transaction has them for long, and the next time will do
		return fmt.Errorf("forget ids of handled messages: %w", err)
	}
	switch done {
	case store.Rotated:
		k.upkeep.rotate = time.Now() // it may be the turn of another inbox
	case store.SweptPiece:
		k.upkeep.rotate = time.Now().Add(sweepAgain)
	}
	return nil
}

// forgetHistory removes records of operations that are too old to be kept.
func (k *Keeper) forgetHistory(ctx context.Context) error {
	const what = "remove old records of operations"
	var more bool
	err := k.chore(ctx, func(tx pgx.Tx) (err error) {
		more, err = k.Store.ForgetHistory(ctx, tx, k.upkeep.forgetting.rows)
		return err
	})
	if isFaultOfWork(err) && !k.upkeep.forgetting.isLeast() {
		k.upkeep.forgetting.shrink()
		k.upkeep.forget = time.Now().Add(forgetAgain)
		return nil
	}
	if more {
		k.upkeep.forget = time.Now().Add(forgetAgain)
	}
	return k.goOn(k.goWithout(err, &k.upkeep.mayNotForget, what+", so they pile up"), what)
}

// goWithout turns the error of a role that lacks a privilege into a mark that it does, and says what it may not; other
// errors it returns.
func (k *Keeper) goWithout(err error, mark *bool, what string) error {
	if session.State(err) != session.InsufficientPrivilege {
		return err
	}
	*mark = true
	k.mayNot(what, err)
	return nil
}

// mayNot says once that the role lacks a privilege that an endpoint can do without.
func (k *Keeper) mayNot(what string, err error) {
	k.Log.Warn("sqlq: this role may not "+what+"; grant it consumer again", "schema", k.Store.Name(), "err", err)
}
