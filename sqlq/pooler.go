package sqlq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Transaction poolers. PgBouncer and its like, in transaction mode, give each transaction whichever server connection is
// free. What belongs to a session then lands on a stranger's: a setting changes another program's statements, a session
// lock stays on a server connection that nobody thinks of, LISTEN succeeds and nothing is ever delivered. So the library
// finds out before it does any of these, on each of its own connections:
//
//   - receive connections make their settings at the beginning of each transaction, to its end;
//   - nobody listens, endpoints poll;
//   - instances are registered without a session lock, so their heartbeat alone says that they live;
//   - the oldest of the living instances leads, instead of the one that has the session lock.
//
// Config.ListenURL leads past the pooler for the connections that need a session. Sending needs none: a sender's probe
// takes a lock and gives it back within one statement.

// errPooled is why an instance does not listen.
var errPooled = errors.New("a transaction pooler, such as PgBouncer, stands between this process and the database; LISTEN does not work through it")

// beginHeld begins a receive transaction through a transaction pooler, with the settings that a session of its own would
// have: see settings and plans.
const (
	beginHeld = `BEGIN ISOLATION LEVEL READ COMMITTED`
	setHeld   = `SELECT set_config('idle_in_transaction_session_timeout', '10s', true), set_config('jit', 'off', true),
		set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
		set_config('enable_sort', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true),
		set_config('datestyle', 'ISO', true), set_config('bytea_output', 'hex', true)`
	beginKept = beginHeld + `; SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL enable_seqscan = off; SET LOCAL jit = off`
)

// queueBegin begins a receive transaction, in a round trip.
func (c *conn) queueBegin(b *pgx.Batch) {
	if !c.pooled {
		b.Queue(`BEGIN`)
		return
	}
	b.Queue(beginHeld)
	b.Queue(setHeld)
}

// begin begins a receive transaction.
func (c *conn) begin(ctx context.Context) error {
	sql := `BEGIN`
	if c.pooled {
		sql = beginHeld + `; ` + setHeld
	}
	_, err := c.Exec(ctx, sql)
	return err
}

// keeping are the options of the housekeeping's transactions.
func (c *conn) keeping() pgx.TxOptions {
	if c.pooled {
		return pgx.TxOptions{BeginQuery: beginKept}
	}
	return pgx.TxOptions{}
}

// meet asks the server for its process id and what it has for plans. It sets nothing, and prepares nothing.
func meet(ctx context.Context, pg *pgconn.PgConn) (pid uint32, ownPlans []string, err error) {
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
		ownPlans = append(ownPlans, string(value))
	}
	return uint32(n), ownPlans, nil
}

// askWithin bounds the asking of both connections.
const askWithin = 5 * time.Second

// isPooled says whether transactions on a connection may run in different sessions: see store.Pooled. What is known of a
// place is not asked again.
func (c *Client) isPooled(ctx context.Context, config *pgx.ConnConfig, pg *pgconn.PgConn, pid uint32) (bool, error) {
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

// checkExecMode refuses the one mode in which a pooler can mix up statements: describe_exec sends a statement and its
// parameters in two round trips, and what was sent in between by others may be what the parameters meet. See
// pgx.QueryExecModeDescribeExec.
func (c *Client) checkExecMode(ctx context.Context) error {
	if c.pool.Config().ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeDescribeExec {
		return nil
	}
	held, err := c.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("look for a transaction pooler: %w", unreachable(err))
	}
	defer held.Release()
	pg := held.Conn().PgConn()
	if pid, _, err := meet(ctx, pg); err != nil || pid == pg.PID() {
		return err
	}
	return ErrUnsafeExecMode
}

// explainPooler adds to the errors of a pooler that does not keep prepared statements apart what to do about them.
func explainPooler(err error) error {
	switch sqlState(err) {
	case unknownStatement, duplicateStatement:
		return fmt.Errorf("%w (does a transaction pooler stand in between? Let it keep prepared statements apart, PgBouncer from 1.21 on by max_prepared_statements, or add default_query_exec_mode=exec to the connection string)", err)
	}
	return err
}

// checkListenURL sees that Config.ListenURL leads to the database of the pool.
func (c *Client) checkListenURL(ctx context.Context, db store.DBTX) error {
	if c.config.ListenURL == "" {
		return nil
	}
	here, err := c.store.Identity(ctx, c.pool)
	if err != nil {
		return fmt.Errorf("compare databases: %w", err)
	}
	there, err := c.store.Identity(ctx, db)
	if err != nil {
		return fmt.Errorf("compare databases: %w", err)
	}
	if here != there {
		return fmt.Errorf("%w: let it lead to database %q and its schema %q, past the pooler", ErrOtherDatabase, c.pool.Config().ConnConfig.Database, c.config.Schema)
	}
	return nil
}
