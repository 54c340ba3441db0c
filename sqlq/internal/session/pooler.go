package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Transaction poolers. PgBouncer and the like, in transaction mode, give each transaction whichever server connection is
// free. So anything that belongs to a session ends up on a shared one: a setting changes another program's statements, a session
// lock stays behind on some server connection, LISTEN succeeds but nothing is ever delivered. So the library
// detects poolers before it does any of these, on each of its own connections. Behind one:
//
//   - receive connections apply their settings at the beginning of each transaction, for that transaction;
//   - no process listens, and endpoints poll;
//   - instances are registered without a session lock, so only their heartbeats show that they are alive;
//   - the oldest living instance leads, instead of the one that has the session lock.
//
// Config.ListenURL leads past the pooler for the connections that need a session. Sending needs none: a sender's probe
// takes a lock and gives it back within one statement.

// ErrPooled is the reason why an instance does not listen.
var ErrPooled = errors.New("a transaction pooler, such as PgBouncer, stands between this process and the database; LISTEN does not work through it")

// ErrDeaf is the reason why a session that listens is not relied upon.
var ErrDeaf = errors.New("LISTEN succeeds but no notification arrives; is there a transaction pooler in between?")

// beginHeld begins a receive transaction through a transaction pooler, with the settings that a connection with a session of its
// own would have: see settings and plans.
const (
	beginHeld = `BEGIN ISOLATION LEVEL READ COMMITTED`
	setHeld   = `SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('jit', 'off', true),
		set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
		set_config('enable_sort', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true),
		set_config('datestyle', 'ISO', true), set_config('bytea_output', 'hex', true)`
	beginKept = beginHeld + `; SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL enable_seqscan = off; SET LOCAL jit = off`
)

// QueueBeginReceive adds the beginning of a receive transaction to a round trip.
func (c *Conn) QueueBeginReceive(b *pgx.Batch) {
	if !c.Pooled {
		b.Queue(`BEGIN`)
		return
	}
	b.Queue(beginHeld)
	b.Queue(setHeld)
}

// BeginReceive begins a receive transaction.
func (c *Conn) BeginReceive(ctx context.Context) error {
	sql := `BEGIN`
	if c.Pooled {
		sql = beginHeld + `; ` + setHeld
	}
	_, err := c.Exec(ctx, sql)
	return err
}

// Keeping returns the options of housekeeping transactions.
func (c *Conn) Keeping() pgx.TxOptions {
	if c.Pooled {
		return pgx.TxOptions{BeginQuery: beginKept}
	}
	return pgx.TxOptions{}
}

// KeepingWithin is like Keeping, for a transaction in which the server cancels a statement that takes longer than d, with 57014. The
// connection, and the locks that it holds, are kept.
func (c *Conn) KeepingWithin(d time.Duration) pgx.TxOptions {
	begin := beginHeld
	if c.Pooled {
		begin = beginKept
	}
	return pgx.TxOptions{BeginQuery: begin + fmt.Sprintf(`; SET LOCAL statement_timeout = %d`, d.Milliseconds())}
}

// meet asks the server for its process id and its values of plans. It sets nothing, and prepares nothing.
func meet(ctx context.Context, pg *pgconn.PgConn) (pid uint32, OwnPlans []string, err error) {
	sql := `SELECT pg_backend_pid()`
	for _, name := range plans {
		sql += `, current_setting('` + name + `')`
	}
	results, err := pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return 0, nil, fmt.Errorf("set up the connection: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 1+len(plans) {
		return 0, nil, errors.New("set up the connection: the server did not answer what it was asked")
	}
	row := results[0].Rows[0]
	n, err := strconv.ParseUint(string(row[0]), 10, 32)
	if err != nil {
		return 0, nil, fmt.Errorf("set up the connection: process id of the server: %w", err)
	}
	for _, value := range row[1:] {
		OwnPlans = append(OwnPlans, string(value))
	}
	return uint32(n), OwnPlans, nil
}

// askWithin limits the time for asking both connections.
const askWithin = 5 * time.Second

// isPooled reports whether transactions on a connection may run in different sessions: see store.Pooled. The answer is cached for each
// connection string.
func (c *Connector) isPooled(ctx context.Context, config *pgx.ConnConfig, pg *pgconn.PgConn, pid uint32) (bool, error) {
	if pid == pg.PID() {
		return false, nil
	}
	place := fmt.Sprintf("%s:%d %s", config.Host, config.Port, config.ConnString())
	if _, known := c.pooled.Load(place); known {
		return true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	pooled, err := store.Pooled(bounded, config, pg, pid)
	if err != nil {
		return false, fmt.Errorf("look for a transaction pooler: %w", err)
	}
	if pooled && bounded.Err() == nil {
		c.pooled.Store(place, true)
	}
	return pooled, nil
}

// HasUnsafeExecMode reports whether the pool goes through a pooler and uses the one mode in which a pooler can mix up statements:
// describe_exec sends a statement and its parameters in two round trips, and another client's statement may get in
// between. See pgx.QueryExecModeDescribeExec.
func HasUnsafeExecMode(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	if pool.Config().ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeDescribeExec {
		return false, nil
	}
	held, err := pool.Acquire(ctx)
	if err != nil {
		return false, fmt.Errorf("look for a transaction pooler: %w", Unreachable(err))
	}
	defer held.Release()
	pg := held.Conn().PgConn()
	pid, _, err := meet(ctx, pg)
	return err == nil && pid != pg.PID(), err
}

// ExplainPooler adds advice to the errors of a pooler that does not keep its clients' prepared statements apart.
func ExplainPooler(err error) error {
	switch State(err) {
	case UnknownStatement, DuplicateStatement:
		return fmt.Errorf("%w (does a transaction pooler stand in between? Let it keep prepared statements apart, PgBouncer from 1.21 on by max_prepared_statements, or add default_query_exec_mode=exec to the connection string)", err)
	}
	return err
}
