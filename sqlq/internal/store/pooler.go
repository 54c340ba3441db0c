package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// BackendPID returns the process id of the server that answers at this moment. It prepares nothing, and locks nothing.
func BackendPID(ctx context.Context, pg *pgconn.PgConn) (uint32, error) {
	results, err := pg.Exec(ctx, `SELECT pg_backend_pid()`).ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return 0, errors.New("the server did not say its process id")
	}
	pid, err := strconv.ParseUint(string(results[0].Rows[0][0]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("process id of the server: %w", err)
	}
	return uint32(pid), nil
}

// Pooled says whether transactions on a connection may run in different sessions, given the process id that the server
// has told by itself. A direct connection is told that id when it begins; whatever stands in between gives out keys of
// its own. It may be harmless: a proxy, or a pooler in session mode. Then another connection to the same place is made,
// and both are asked in turn: one that is answered by two processes, or two that are answered by one, are pooled.
//
// A pooler that has no connection left may have it wait: when ctx ends the answer is yes, because whoever is not known to
// have a session has none. Bound it.
func Pooled(ctx context.Context, config *pgx.ConnConfig, pg *pgconn.PgConn, pid uint32) (bool, error) {
	if pid == pg.PID() {
		return false, nil
	}
	other, err := pgx.ConnectConfig(ctx, config)
	if ctx.Err() != nil {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer other.Close(context.WithoutCancel(ctx))
	// Both orders of two, in a row and by turns, because a pooler may take its connections from either end; then at random,
	// because other programs use it too.
	order := []int{0, 1, 1, 0, 0, 1}
	for range 18 {
		order = append(order, rand.IntN(2))
	}
	seen := [2]uint32{}
	for _, i := range order {
		answered, err := BackendPID(ctx, []*pgconn.PgConn{pg, other.PgConn()}[i])
		if ctx.Err() != nil && !pg.IsClosed() {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		if seen[i] == 0 {
			seen[i] = answered
		}
		if seen[i] != answered || seen[0] == seen[1] {
			return true, nil
		}
	}
	return false, nil
}
