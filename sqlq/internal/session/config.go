package session

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The library's own connections are made like those of the program's pool: the same server and user, reached the same way
// (DialFunc, LookupFunc, TLS, AfterNetConnect, OAuthTokenProvider), the same choice among hosts (ValidateConnect), and the same hooks
// before and after connecting (BeforeConnect, AfterConnect), because changing passwords, tokens, roles and types come from there.
// Whatever the program has set for its own use of a connection could get between the library and the
// server, and is not taken over: see dropOwn.

// hookWithin limits each call of the pool's BeforeConnect and AfterConnect, which may contact other machines.
const hookWithin = 30 * time.Second

// leastCached is the minimum number of statements that a connection caches, prepared or described: the library runs a few dozen.
const leastCached = 512

// config returns how to make the library's own connections for a purpose, and what to do with each afterwards.
func (c *Connector) config(ctx context.Context, why Purpose) (config *pgx.ConnConfig, afterConnect func(context.Context, *pgx.Conn) error, err error) {
	pool := c.Pool.Config() // a copy
	config, afterConnect = pool.ConnConfig, pool.AfterConnect
	beforeConnect := pool.BeforeConnect
	if c.ListenURL != "" && why != Receive {
		other, err := pgxpool.ParseConfig(c.ListenURL)
		if err != nil {
			return nil, nil, fmt.Errorf("Config.ListenURL: %w", err)
		}
		config, beforeConnect, afterConnect = other.ConnConfig, nil, nil
	}
	if beforeConnect != nil {
		hook, cancel := context.WithTimeout(ctx, hookWithin)
		defer cancel()
		if err := beforeConnect(hook, config); err != nil {
			return nil, nil, fmt.Errorf("the pool's BeforeConnect: %w", err)
		}
	}
	if config.ConnectTimeout <= 0 {
		config.ConnectTimeout = connectWithin(config)
	}
	c.dropOwn(config, why)
	setParameters(config, why)
	noticeDeath(config)
	return config, afterConnect, nil
}

// connectWithin limits an attempt to connect to one host, unless the pool has a limit of its own. With several hosts it is short: they
// are tried in turn, the first may be a dead machine that does not answer, and the one that has taken over
// must be found within seconds.
func connectWithin(config *pgx.ConnConfig) time.Duration {
	if HasSeveralHosts(config) {
		return 3 * time.Second
	}
	return 10 * time.Second
}

// HasSeveralHosts reports whether a configuration names more than one server.
func HasSeveralHosts(config *pgx.ConnConfig) bool {
	for _, f := range config.Fallbacks { // a fallback may also be the first host again, with or without TLS
		if f.Host != config.Host || f.Port != config.Port {
			return true
		}
	}
	return false
}

// dropOwn removes from a configuration what the program has set for its own use: callbacks that would hide notifications and
// errors from the library, or keep a connection that the server has ended, and limits and caches that do not fit the library's
// statements.
func (c *Connector) dropOwn(config *pgx.ConnConfig, why Purpose) {
	config.Tracer = c.handlerTracer(config.Tracer, why)
	config.OnNotice = nil
	config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {} // pgx would collect them for ever
	if why == Listen {
		config.OnNotification = nil // pgx collects them for WaitForNotification
	}
	config.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Severity != "FATAL" && err.SeverityUnlocalized != "FATAL" // after which the connection is closed
	}
	config.BuildFrontend = pgproto3.NewFrontend
	config.MaxProtocolMessageBodyLen = 0
	config.StatementCacheCapacity = max(config.StatementCacheCapacity, leastCached)
	config.DescriptionCacheCapacity = max(config.DescriptionCacheCapacity, leastCached)
	config.BuildContextWatcherHandler = func(pg *pgconn.PgConn) ctxwatch.Handler {
		if why != Receive {
			return &pgconn.DeadlineContextWatcherHandler{Conn: pg.Conn()}
		}
		// A handler whose context ends during a statement loses the statement, but not the connection with the work of other handlers.
		return &pgconn.CancelRequestContextWatcherHandler{Conn: pg, DeadlineDelay: 5 * time.Second}
	}
}

// setParameters sets, as startup parameters, what must hold from the first answer on or cannot be set later through a transaction
// pooler: every pooler passes on the ones used there. Names of settings are case-insensitive.
func setParameters(config *pgx.ConnConfig, why Purpose) {
	own := map[string]string{"application_name": string(why), "client_encoding": "UTF8"}
	if why != Receive {
		own["datestyle"], own["timezone"] = "ISO", "UTC"
	}
	maps.DeleteFunc(config.RuntimeParams, func(name, _ string) bool {
		_, is := own[strings.ToLower(name)]
		return is
	})
	if config.RuntimeParams == nil {
		config.RuntimeParams = map[string]string{}
	}
	maps.Copy(config.RuntimeParams, own)
}
