package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Purpose says what one of the library's own connections is for. The server shows it as application_name.
type Purpose string

// The purposes.
const (
	Receive Purpose = "sqlq receive"
	Listen  Purpose = "sqlq listen"
	Keep    Purpose = "sqlq keep"
)

// settings are what a connection sets in addition to the role's and the database's own. One that the server does not know, or
// refuses, is left out.
//
// Handlers' SQL runs on receive connections, so these set only the format of results (which pgx must be able to parse
// in the modes that use text), and nothing that changes the meaning of a statement: "ISO" alone keeps the order of day and month.
var settings = map[Purpose][][2]string{
	Receive: append([][2]string{
		{"default_transaction_isolation", "read committed"},
		// A frozen client would keep its rows locked for as long as the server waits for it.
		{"idle_in_transaction_session_timeout", "10s"},
		{"client_connection_check_interval", "5s"},
		{"jit", "off"},
	}, always...),
	Listen: append([][2]string{{"default_transaction_isolation", "read committed"}}, slices.Concat(always, text)...),
	Keep: append([][2]string{
		{"default_transaction_isolation", "read committed"}, {"idle_in_transaction_session_timeout", "10s"}, {"jit", "off"}, {"enable_seqscan", "off"},
	}, slices.Concat(always, text)...),
}

var (
	always = [][2]string{
		{"tcp_user_timeout", "15s"}, {"tcp_keepalives_idle", "10"}, {"tcp_keepalives_interval", "5"}, {"tcp_keepalives_count", "2"},
		{"idle_session_timeout", "0"}, {"client_encoding", "UTF8"}, {"datestyle", "ISO"}, {"bytea_output", "hex"},
	}
	text = [][2]string{{"intervalstyle", "postgres"}, {"timezone", "UTC"}, {"extra_float_digits", "1"}, {"standard_conforming_strings", "on"}}
)

// plans are the planner settings for fetches: a queue's statistics are wrong most of the time, and its
// primary key is always the right index. HandleTx handlers run with the server's own instead.
var plans = []string{"enable_seqscan", "enable_bitmapscan", "enable_sort", "plan_cache_mode"}

// FetchPlans are the values of plans on a receive connection.
var FetchPlans = []string{"off", "off", "off", "force_generic_plan"}

// Conn is a connection of the library's own.
type Conn struct {
	*pgx.Conn
	OwnPlans []string // the server's own values of plans
	Pooled   bool     // whether it goes through a transaction pooler, so that it has no session of its own
	Used     bool     // whether it was another's before the library had it: a pooler's, or an AfterConnect's
}

// Connector makes the library's own connections. Set its fields before the first use.
type Connector struct {
	Pool      *pgxpool.Pool                  // the program's; connections are made like its own
	ListenURL string                         // for connections other than those for receiving; empty: the pool's
	OfHandler func(ctx context.Context) bool // reports whether the context of a statement is a handler's

	pooled sync.Map // the connection strings that lead through a transaction pooler
}

// Connect makes a connection for a purpose.
func (c *Connector) Connect(ctx context.Context, why Purpose) (*Conn, error) {
	config, afterConnect, err := c.config(ctx, why)
	if err != nil {
		return nil, fmt.Errorf("open the connection %q: %w", why, err)
	}
	raw, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the connection %q: %w", why, Unreachable(err))
	}
	own := &Conn{Conn: raw}
	if err := own.setUp(ctx, c, config, afterConnect, why); err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		raw.Close(closing)
		return nil, fmt.Errorf("open the connection %q: %w", why, err)
	}
	return own, nil
}

// setUp finds out whether the connection has a session of its own, runs the pool's AfterConnect, and then, if
// it has, applies the library's settings; they come last so that they win.
func (c *Conn) setUp(ctx context.Context, by *Connector, config *pgx.ConnConfig, afterConnect func(context.Context, *pgx.Conn) error, why Purpose) error {
	pid, _, err := meet(ctx, c.PgConn())
	if err != nil {
		return err
	}
	if c.Pooled, err = by.isPooled(ctx, config, c.PgConn(), pid); err != nil {
		return err
	}
	c.Used = c.Pooled || afterConnect != nil
	if afterConnect != nil {
		if err := c.prepareAs(ctx, afterConnect); err != nil {
			return err
		}
	}
	if _, c.OwnPlans, err = meet(ctx, c.PgConn()); err != nil || c.Pooled { // AfterConnect may have set them
		return err
	}
	if err := c.set(ctx, settings[why]); err != nil || why != Receive {
		return err
	}
	if err := store.SetSession(ctx, c, plans, FetchPlans); err != nil {
		return fmt.Errorf("set up the connection: %w", err)
	}
	return nil
}

// prepareAs runs the pool's AfterConnect. Channels that it listens on are dropped again: they are for the program's own connections.
func (c *Conn) prepareAs(ctx context.Context, afterConnect func(context.Context, *pgx.Conn) error) error {
	hook, cancel := context.WithTimeout(ctx, hookWithin)
	defer cancel()
	if err := afterConnect(hook, c.Conn); err != nil {
		return fmt.Errorf("the pool's AfterConnect: %w", err)
	}
	if c.IsClosed() || c.PgConn().TxStatus() != 'I' {
		return errors.New("the pool's AfterConnect left the connection closed or in a transaction")
	}
	if c.Pooled {
		return nil
	}
	if _, err := c.PgConn().Exec(ctx, `UNLISTEN *`).ReadAll(); err != nil {
		return fmt.Errorf("set up the connection: %w", err)
	}
	return nil
}

// set applies settings to the session, as far as the server knows and allows them: all together, and if it refuses
// that, one by one.
func (c *Conn) set(ctx context.Context, settings [][2]string) error {
	var names, values []string
	for _, s := range settings {
		names, values = append(names, s[0]), append(values, s[1])
	}
	err := store.SetSession(ctx, c, names, values)
	for i := 0; err != nil && !Lost(err) && i < len(names); i++ {
		if one := store.SetSession(ctx, c, names[i:i+1], values[i:i+1]); Lost(one) {
			err = one
		}
	}
	if Lost(err) {
		return fmt.Errorf("set up the connection: %w", err)
	}
	return nil
}

// SetPlans gives a HandleTx handler the server's own planner settings, or takes them back, until the end of the transaction.
const SetPlans = `SELECT ` + PlanSettings

// PlanSettings is the list that SetPlans selects; its parameters are $1 to $4.
const PlanSettings = `set_config('enable_seqscan', $1, true), set_config('enable_bitmapscan', $2, true),
	set_config('enable_sort', $3, true), set_config('plan_cache_mode', $4, true)`
