package session

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// OnPool runs a statement of the library's own on a connection of the pool. One that is lost, or that has become read-only
// because it was opened while the server was, is taken out of the pool, and another is tried.
func OnPool(ctx context.Context, pool *pgxpool.Pool, run func(db store.DBTX) error) error {
	var err error
	for range 1 + pool.Config().MaxConns {
		var conn *pgxpool.Conn
		if conn, err = pool.Acquire(ctx); err != nil {
			return err
		}
		if err = run(conn); Lost(err) {
			_ = conn.Conn().Close(ctx) // so the pool does not keep it
		}
		conn.Release()
		if err == nil || !Lost(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// ReadOnly finds connections of the program's pool that no longer say the truth. The zero value is ready.
type ReadOnly struct {
	looked atomic.Int64 // when Drop last did, in nanoseconds since 1970
}

// Drop takes those idle connections out of the pool that stay read-only although the server may not be any more, and
// reports whether there were some: sessions keep the default that they began with. Once a second at most, because on a server
// that is read-only all are.
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
