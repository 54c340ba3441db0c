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

// The library's own connections are made like those of the program's pool: the same server, user, way there (DialFunc,
// LookupFunc, TLS, AfterNetConnect, OAuthTokenProvider), the same choice among hosts (ValidateConnect), and what the program
// does before and after it connects (BeforeConnect, AfterConnect), because that is where passwords that change, tokens, roles
// and types come from. What the program has set for its own use of a connection could come between the library and the
// server, and is not taken over: see dropOwn.

// hookWithin bounds each of the pool's BeforeConnect and AfterConnect, which may ask other machines.
const hookWithin = 30 * time.Second

// leastCached is the least number of statements that a connection keeps prepared or described: the library runs a few dozen.
const leastCached = 512

// config is how the library's own connections for a purpose are made, and what is done with each after that.
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

// connectWithin bounds an attempt to connect to one host, where the pool does not say. With several hosts it is short: they
// are tried in turn, the first may be a machine that is gone and answers nothing, and the one that has taken over for it
// is to be found within seconds.
func connectWithin(config *pgx.ConnConfig) time.Duration {
	if HasSeveralHosts(config) {
		return 3 * time.Second
	}
	return 10 * time.Second
}

// HasSeveralHosts reports whether a configuration names more than one server.
func HasSeveralHosts(config *pgx.ConnConfig) bool {
	for _, f := range config.Fallbacks { // those of the first host are other ways to reach it, with TLS and without
		if f.Host != config.Host || f.Port != config.Port {
			return true
		}
	}
	return false
}

// dropOwn takes out of a configuration what the program has set for its own use: callbacks that would keep notifications and
// errors from the library or let a connection live on that the server has ended, and limits and caches that do not fit its
// statements.
func (c *Connector) dropOwn(config *pgx.ConnConfig, why Purpose) {
	config.Tracer = c.handlerTracer(config.Tracer, why)
	config.OnNotice = nil
	config.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {} // pgx would gather them without end
	if why == Listen {
		config.OnNotification = nil // pgx gathers them for WaitForNotification
	}
	config.OnPgError = func(_ *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Severity != "FATAL" && err.SeverityUnlocalized != "FATAL" // of which the connection is closed
	}
	config.BuildFrontend = pgproto3.NewFrontend
	config.MaxProtocolMessageBodyLen = 0
	config.StatementCacheCapacity = max(config.StatementCacheCapacity, leastCached)
	config.DescriptionCacheCapacity = max(config.DescriptionCacheCapacity, leastCached)
	config.BuildContextWatcherHandler = func(pg *pgconn.PgConn) ctxwatch.Handler {
		if why != Receive {
			return &pgconn.DeadlineContextWatcherHandler{Conn: pg.Conn()}
		}
		// A handler whose context ends during a statement loses the statement, not the connection with its neighbours' work.
		return &pgconn.CancelRequestContextWatcherHandler{Conn: pg, DeadlineDelay: 5 * time.Second}
	}
}

// setParameters asks for what must hold from the first answer on, or cannot be set later, through a transaction pooler: those
// of these names every pooler passes on. The names of settings are the same in any case.
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
