package presence

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

const (
	// roundRows limits the messages that one transaction of a background chore moves.
	roundRows = 1_000
	// roundBytes limits their bodies and headers, as they are stored, beyond the first message.
	roundBytes = 16 << 20
	// shrinkTo and growTo are how a round changes if it took too long, or was quick.
	shrinkTo, growTo = 4, 2
)

// round is how much one transaction of a chore does. If it takes too long it is undone, and the next is smaller: repeating it at
// the same size would never end.
type round struct {
	rows  int
	bytes int64
	full  int // rows of a whole round
}

func wholeRound(rows int) round { return round{rows: rows, bytes: roundBytes, full: rows} }

// firstRound is the first small round of a queue in which something took too long.
func firstRound() round { return round{rows: 16, bytes: roundBytes / 64, full: roundRows} }

// isLeast reports whether the round cannot be smaller: one message.
func (r round) isLeast() bool { return r.rows <= 1 }

func (r *round) shrink() { r.rows, r.bytes = max(1, r.rows/shrinkTo), max(1, r.bytes/shrinkTo) }

// took makes the next round larger if this one took so little of its time limit that a larger one will not exceed it.
func (r *round) took(d, limit time.Duration) {
	if d < limit/(2*growTo) {
		r.rows, r.bytes = min(r.full, r.rows*growTo), min(roundBytes, r.bytes*growTo)
	}
}

// choreWithin is how long a statement of a background chore may take: several of them fit between two heartbeats, and all of
// them before this process is taken for dead.
func (k *Keeper) choreWithin() time.Duration { return k.LeaseTime / 8 }

// bounded runs one transaction of a background chore. The server cancels a statement that takes longer than choreWithin, with
// 57014; the connection, and with it the lead, is kept.
func (k *Keeper) bounded(ctx context.Context, do func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, k.conn, k.conn.KeepingWithin(k.choreWithin()), do)
}

// isFaultOfWork reports whether an error comes from what was being worked on, such as a locked table, a trigger
// or a row that takes too long, so that other work can go on. Otherwise it comes from the connection, the server or the role's privileges.
func isFaultOfWork(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || session.Lost(err) {
		return false
	}
	switch pg.Code[:2] {
	case "08", "25", "28", "53", "58":
		return false
	}
	return pg.Code != session.InsufficientPrivilege && pg.Code != "42883" && !strings.HasPrefix(pg.Code, "57P")
}

// unlessOfWork returns an error if it ends the housekeeping for now, and nil if other work can go on.
func unlessOfWork(err error) error {
	if isFaultOfWork(err) {
		return nil
	}
	return err
}
