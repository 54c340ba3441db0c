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

// sweepRows is how many rows of a queue one piece of a sweep reads, and sweepFor how long a sweep runs before other work gets
// its turn.
const sweepRows, sweepFor = 20_000, 100 * time.Millisecond

// sweeping is the progress of the sweep for expired messages.
type sweeping struct {
	unswept []string         // queues that the current sweep has not reached yet
	upTo    map[string]int64 // where the sweep of each queue continues
	pieces  map[string]round // for queues in which a whole piece took too long
}

func newSweeping() sweeping { return sweeping{upTo: map[string]int64{}, pieces: map[string]round{}} }

// sweep removes expired messages, a piece of each queue, and records of instances that ended long ago. It stops after a while
// and continues there with the next call, so that it reaches the last queue however many there are.
func (c *chores) sweep(ctx context.Context) (again time.Duration, err error) {
	st, s := c.keeper.Store, &c.sweeping
	if len(s.unswept) == 0 {
		queues, err := st.Queues.Names(ctx, c.keeper.conn)
		if err != nil {
			return finished, err
		}
		gone := func(queue string) bool { return !slices.Contains(queues, queue) }
		maps.DeleteFunc(s.upTo, func(queue string, _ int64) bool { return gone(queue) })
		maps.DeleteFunc(s.pieces, func(queue string, _ round) bool { return gone(queue) })
		s.unswept = queues
	}
	for began := time.Now(); len(s.unswept) > 0; {
		queue := s.unswept[0]
		again, err := c.sweepPiece(ctx, queue)
		if err != nil {
			return 0, fmt.Errorf("queue %q: %w", queue, err)
		}
		if s.unswept = s.unswept[1:]; again {
			s.unswept = append(s.unswept, queue)
		}
		if len(s.unswept) > 0 && time.Since(began) > sweepFor {
			return 0, nil
		}
	}
	if err := st.Instances.Forget(ctx, c.keeper.conn); err != nil {
		return finished, fmt.Errorf("forget ended instances: %w", err)
	}
	return finished, nil
}

// SweepOnce connects and makes one whole sweep, as the leading process does, in turns that take no longer than within.
// It is for tests.
func (k *Keeper) SweepOnce(ctx context.Context, within time.Duration) error {
	if err := k.connect(ctx); err != nil {
		return err
	}
	defer k.disconnect()
	c := k.chores
	for turn := true; turn; turn = len(c.sweeping.unswept) > 0 {
		bounded, cancel := context.WithTimeout(ctx, within)
		_, err := c.sweep(bounded)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepPiece removes the expired messages of a piece of a queue, and reports whether there are more in that piece.
func (c *chores) sweepPiece(ctx context.Context, queue string) (again bool, err error) {
	s := &c.sweeping
	piece, small := s.pieces[queue]
	if !small {
		piece = wholeRound(sweepRows)
	}
	began := time.Now()
	var swept store.Swept
	err = c.keeper.bounded(ctx, func(tx pgx.Tx) (err error) {
		swept, err = c.keeper.Store.Queues.SweepExpired(ctx, tx, queue, s.upTo[queue], piece.rows, piece.bytes)
		return err
	})
	switch state := session.State(err); {
	case state == session.UndefinedTable || state == session.LockNotAvailable: // it has been dropped, or its table has been locked for long
		return false, nil
	case isFaultOfWork(err):
		if piece.isLeast() {
			return false, c.goOn(err, "sweep expired messages of queue "+queue)
		}
		piece.shrink()
		s.pieces[queue] = piece
		return true, nil
	case err != nil:
		return false, err
	}
	s.upTo[queue] = swept.UpTo
	if swept.Removed > 0 {
		c.keeper.Log.Info("sqlq: removed messages whose time to live had passed before anybody received them", "queue", queue, "messages", swept.Removed)
	}
	piece.took(time.Since(began), c.keeper.choreWithin())
	if delete(s.pieces, queue); piece.rows < piece.full {
		s.pieces[queue] = piece
	}
	return swept.More, nil
}
