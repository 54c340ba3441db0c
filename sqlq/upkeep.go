package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

const (
	// sweepEvery is the pause between sweeps for expired messages, and sweepRows how many rows of a queue one reads.
	sweepEvery, sweepRows = time.Minute, 20_000
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
	sweep, traffic, rotate, forget time.Time
	upTo                           map[string]int64 // where the sweep of each queue goes on

	mayNotRead, mayNotRotate, mayNotForget bool // the role lacks the privilege: it was granted by an older grant_role
}

func newUpkeep() upkeep {
	return upkeep{sweep: time.Now().Add(sweepEvery), upTo: map[string]int64{}}
}

// keepUp does, in the process that leads, what is due of the upkeep: each a bounded piece.
func (k *keeper) keepUp(ctx context.Context) error {
	if !k.leadsNow() {
		return nil
	}
	now, u := time.Now(), &k.upkeep
	if now.After(u.sweep) {
		u.sweep = now.Add(sweepEvery)
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
	if now.After(u.forget) && !u.mayNotForget {
		u.forget = now.Add(forgetEvery)
		return k.forgetHistory(ctx)
	}
	return nil
}

// sweep removes expired messages a piece at a time, and records of instances that ended long ago.
func (k *keeper) sweep(ctx context.Context) error {
	st := k.run.client.store
	queues, err := st.QueueNames(ctx, k.conn)
	if err != nil {
		return fmt.Errorf("sweep expired messages: %w", err)
	}
	for _, q := range queues {
		_, upTo, err := st.SweepExpired(ctx, k.conn, q, k.upkeep.upTo[q], sweepRows)
		if err != nil && sqlState(err) != undefinedTable {
			return fmt.Errorf("sweep expired messages of queue %q: %w", q, err)
		}
		k.upkeep.upTo[q] = upTo
	}
	if err := st.ForgetInstances(ctx, k.conn); err != nil {
		return fmt.Errorf("forget ended instances: %w", err)
	}
	return nil
}

// readTraffic takes a reading of how much arrives in the queues, from which the rates are made that operators see.
func (k *keeper) readTraffic(ctx context.Context) error {
	err := k.goWithout(k.run.client.store.ReadTraffic(ctx, k.conn), &k.upkeep.mayNotRead,
		"read how much arrives in the queues, so operators see no rates")
	if err != nil && sqlState(err) != lockNotAvailable { // else somebody is dropping a queue, and the next reading will do
		return fmt.Errorf("read how much arrives in the queues: %w", err)
	}
	return nil
}

// rotateInbox forgets ids of handled messages that were kept for their time.
func (k *keeper) rotateInbox(ctx context.Context) error {
	done, err := k.run.client.store.RotateInbox(ctx, k.conn)
	err = k.goWithout(err, &k.upkeep.mayNotRotate, "forget ids of handled messages that were kept for their time, so they pile up")
	if err != nil && sqlState(err) != lockNotAvailable { // else a transaction has them for long, and the next time will do
		return fmt.Errorf("forget ids of handled messages: %w", err)
	}
	switch done {
	case store.Rotated:
		k.upkeep.rotate = time.Now() // it may be the turn of another inbox
	case store.Swept:
		k.upkeep.rotate = time.Now().Add(sweepAgain)
	}
	return nil
}

// forgetHistory removes records of operations that are too old to be kept.
func (k *keeper) forgetHistory(ctx context.Context) error {
	more, err := k.run.client.store.ForgetHistory(ctx, k.conn, forgetRows)
	err = k.goWithout(err, &k.upkeep.mayNotForget, "remove old records of operations, so they pile up")
	if err != nil {
		return fmt.Errorf("forget old operations: %w", err)
	}
	if more {
		k.upkeep.forget = time.Now().Add(forgetAgain)
	}
	return nil
}

// goWithout turns the error of a role that lacks a privilege into a mark that it does, and says what it may not; other
// errors it returns.
func (k *keeper) goWithout(err error, mark *bool, what string) error {
	if sqlState(err) != insufficientPrivs {
		return err
	}
	*mark = true
	k.mayNot(what, err)
	return nil
}

// mayNot says once that the role lacks a privilege that an endpoint can do without.
func (k *keeper) mayNot(what string, err error) {
	k.run.client.log.Warn("sqlq: this role may not "+what+"; grant it consumer again", "schema", k.run.client.config.Schema, "err", err)
}
