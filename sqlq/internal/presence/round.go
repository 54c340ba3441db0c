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
	// roundRows bounds the messages that one transaction of a background chore moves.
	roundRows = 1_000
	// roundBytes bounds their bodies and headers, as they are stored, beyond the first message.
	roundBytes = 16 << 20
	// shrinkTo and growTo are by how much a round changes that took too long, or that was quick.
	shrinkTo, growTo = 4, 2
)

// round is how much one transaction of a chore does. One that takes too long is undone, and the next is smaller: a chore
// that did the same again would never end.
type round struct {
	rows  int
	bytes int64
	full  int // rows of a whole round
}

func wholeRound(rows int) round { return round{rows: rows, bytes: roundBytes, full: rows} }

// firstRound is that of a queue in which something took too long.
func firstRound() round { return round{rows: 16, bytes: roundBytes / 64, full: roundRows} }

// isLeast reports whether the round cannot be smaller: one message.
func (r round) isLeast() bool { return r.rows <= 1 }

func (r *round) shrink() { r.rows, r.bytes = max(1, r.rows/shrinkTo), max(1, r.bytes/shrinkTo) }

// took makes the next round larger if this one took so little of its limit that it will not take too long.
func (r *round) took(d, limit time.Duration) {
	if d < limit/(2*growTo) {
		r.rows, r.bytes = min(r.full, r.rows*growTo), min(roundBytes, r.bytes*growTo)
	}
}

// choreWithin is how long a statement of a background chore may take: several of them fit between two heartbeats, and all of
// them before this process is thought dead.
func (k *Keeper) choreWithin() time.Duration { return k.LeaseTime / 8 }

// bounded runs one transaction of a background chore. The server ends a statement that takes longer than choreWithin, with
// 57014: the connection, and with it the lead, is kept.
func (k *Keeper) bounded(ctx context.Context, do func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, k.conn, k.conn.KeepingWithin(k.choreWithin()), do)
}

// isFaultOfWork reports whether an error comes from what was being worked on, such as a table that somebody has locked, a trigger
// or a row that takes too long: other work can go on. Else it is the connection, the server or what this role may do.
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

// unlessOfWork returns an error that ends the housekeeping for now, and nil for one after which other work can go on.
func unlessOfWork(err error) error {
	if isFaultOfWork(err) {
		return nil
	}
	return err
}
