package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// OnPool runs one of the library's own statements on a connection of the pool. If the connection is lost, or read-only
// because it was opened while the server was, it is removed from the pool, and another is tried.
func OnPool(ctx context.Context, pool *pgxpool.Pool, run func(db store.DBTX) error) error {
	var err error
	for range 1 + pool.Config().MaxConns {
		var conn *pgxpool.Conn
		if conn, err = pool.Acquire(ctx); err != nil {
			return err
		}
		if err = run(conn); Lost(err) {
			_ = conn.Conn().Close(ctx) // so that the pool does not keep it
		}
		conn.Release()
		if err == nil || !Lost(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// ReadOnly finds connections of the program's pool that are still read-only although the server no longer is. The zero value is ready to use.
type ReadOnly struct {
	looked atomic.Int64 // when Drop last looked, in nanoseconds since 1970
}

// Drop removes idle connections from the pool that are read-only, and reports whether there were any: a session keeps the default
// that it began with, even if the server has become writable since. It does so at most once a second, because on a read-only server
// all connections are read-only.
func (r *ReadOnly) Drop(ctx context.Context, pool *pgxpool.Pool) bool {
	last := r.looked.Load()
	if now := time.Now().UnixNano(); now-last < int64(time.Second) || !r.looked.CompareAndSwap(last, now) {
		return false
	}
	dropped := false
	for _, conn := range pool.AcquireAllIdle(ctx) {
		if pg := conn.Conn().PgConn(); pg.ParameterStatus("default_transaction_read_only") == "on" || pg.ParameterStatus("in_hot_standby") == "on" {
			_ = conn.Conn().Close(ctx)
			dropped = true
		}
		conn.Release()
	}
	return dropped
}
