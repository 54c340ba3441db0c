package presence

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// recover marks dead instances, and puts what they had leased back into the queues. The marks are committed first: whichever process looks
// next gives back what a marked instance had leased, so a death in between costs nothing.
func (k *Keeper) recover(ctx context.Context) error {
	st := k.Store
	var dead []store.Dead
	err := pgx.BeginTxFunc(ctx, k.conn, k.conn.Keeping(), func(tx pgx.Tx) (err error) {
		dead, err = st.Instances.MarkDead(ctx, tx, k.numbers(), time.Since(k.connected) < k.LeaseTime)
		return err
	})
	if err != nil {
		return fmt.Errorf("mark crashed instances: %w", err)
	}
	var freed []string
	var ids []int32
	for _, d := range dead {
		ids = append(ids, d.ID)
		k.Log.Warn("sqlq: an instance crashed; its messages go to others", "endpoint", d.Endpoint, "host", d.Host, "pid", d.PID)
		freed = append(freed, d.Endpoint)
		if d.At.After(k.crashes[d.Endpoint]) {
			k.crashes[d.Endpoint] = d.At // or the heartbeat would learn of it again
		}
		for _, m := range k.members {
			if m.Endpoint == d.Endpoint {
				m.Suspect()
				m.Wake()
			}
		}
	}
	if len(dead) == 0 {
		return k.giveBack(ctx)
	}
	// This comes before anything that may fail, because it would not be done again.
	if err := st.Instances.EndListeners(ctx, k.conn, string(session.Listen), ids); err != nil {
		return fmt.Errorf("end the listening sessions of dead instances: %w", err)
	}
	if err := st.Wakeups.Wake(ctx, k.conn, freed); err != nil {
		return fmt.Errorf("wake the queues of crashed instances: %w", err)
	}
	return k.giveBack(ctx)
}

// giveBack puts what ended instances had leased back into the queues, a round of each queue in turn. What does not fit
// between two heartbeats is left for the next call, which comes at once (unrecovered).
func (k *Keeper) giveBack(ctx context.Context) error {
	st := k.Store
	waiting, err := st.Leases.Recover(ctx, k.conn, "", 0, 0)
	if err != nil {
		return fmt.Errorf("look for the messages of crashed instances: %w", err)
	}
	k.unrecovered = false
	rounds := map[string]*round{}
	for began := time.Now(); len(waiting) > 0; {
		queue := waiting[0].Queue
		waiting = waiting[1:]
		r := rounds[queue]
		if r == nil {
			whole := wholeRound(roundRows)
			if small, known := k.smallRounds[queue]; known {
				whole = small
			}
			r = &whole
			rounds[queue] = r
		}
		more, err := k.giveBackRound(ctx, queue, r)
		if err != nil {
			return err
		}
		if more {
			waiting = append(waiting, store.Recovered{Queue: queue})
		}
		if delete(k.smallRounds, queue); r.rows < r.full {
			k.smallRounds[queue] = *r
		}
		if len(waiting) > 0 && time.Since(began) > min(time.Second, k.choreWithin()) {
			k.unrecovered = true
			return nil
		}
	}
	return nil
}

// giveBackRound gives back a round of one queue, and reports whether more can be given back now.
func (k *Keeper) giveBackRound(ctx context.Context, queue string, r *round) (more bool, err error) {
	began := time.Now()
	var recovered []store.Recovered
	err = k.bounded(ctx, func(tx pgx.Tx) (err error) {
		recovered, err = k.Store.Leases.Recover(ctx, tx, queue, r.rows, r.bytes)
		return err
	})
	if isFaultOfWork(err) {
		if r.isLeast() { // try again at the next heartbeat
			k.Log.Warn("sqlq: messages of crashed instances cannot be given back; they are tried again, and other queues go on", "queue", queue, "err", err)
			return false, nil
		}
		r.shrink()
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("recover the messages of crashed instances: %w", err)
	}
	for _, got := range recovered {
		k.Wake(got.Channel)
		more = more || got.More && got.N > 0
	}
	r.took(time.Since(began), k.choreWithin())
	return more, nil
}
