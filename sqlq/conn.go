package sqlq

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// purpose says what one of the library's own connections is for. The server shows it as application_name.
type purpose string

const (
	forReceiving purpose = "sqlq receive"
	forListening purpose = "sqlq listen"
	forKeeping   purpose = "sqlq keep"
)

// settings are what a connection asks for beyond the role's and database's own. A server that does not know one, or
// does not allow it, is left as it is.
var settings = map[purpose][][2]string{
	forReceiving: {
		{"default_transaction_isolation", "read committed"},
		// A frozen client would hold its rows for as long as the server waits for it.
		{"idle_in_transaction_session_timeout", "10s"},
		{"client_connection_check_interval", "5s"},
		{"tcp_user_timeout", "15s"},
		{"tcp_keepalives_idle", "10"},
		{"tcp_keepalives_interval", "5"},
		{"tcp_keepalives_count", "2"},
		{"jit", "off"},
	},
	forListening: {{"tcp_user_timeout", "15s"}, {"tcp_keepalives_idle", "10"}, {"tcp_keepalives_interval", "5"}, {"tcp_keepalives_count", "2"}, {"idle_session_timeout", "0"}},
	forKeeping:   {{"tcp_user_timeout", "15s"}, {"idle_in_transaction_session_timeout", "10s"}, {"idle_session_timeout", "0"}, {"jit", "off"}, {"enable_seqscan", "off"}},
}

// plans are the settings under which a fetch is planned: a queue's statistics are wrong most of the time, and its
// primary key is right always. HandleTx handlers run with the server's own instead.
var plans = []string{"enable_seqscan", "enable_bitmapscan", "enable_sort", "plan_cache_mode"}

var fetchPlans = []string{"off", "off", "off", "force_generic_plan"}

// conn is a connection of the library's own.
type conn struct {
	*pgx.Conn
	ownPlans []string // what the server had for plans
	pooled   bool     // through a transaction pooler: the session is not this connection's

	statements map[string]*statement // what is known of handlers' SQL
	encoder    pgx.ExtendedQueryBuilder
}

// connectWithin bounds an attempt to connect to one host, where the pool does not say. With several hosts it is short: they
// are tried in turn, the first may be a machine that is gone and answers nothing, and the one that has taken over for it
// is to be found within seconds.
func connectWithin(config *pgx.ConnConfig) time.Duration {
	if severalHosts(config) {
		return 3 * time.Second
	}
	return 10 * time.Second
}

func severalHosts(config *pgx.ConnConfig) bool {
	for _, f := range config.Fallbacks { // those of the first host are other ways to reach it, with TLS and without
		if f.Host != config.Host || f.Port != config.Port {
			return true
		}
	}
	return false
}

func (c *Client) connect(ctx context.Context, why purpose) (*conn, error) {
	config, err := c.connConfig(why)
	if err != nil {
		return nil, err
	}
	if config.RuntimeParams == nil {
		config.RuntimeParams = map[string]string{}
	}
	config.RuntimeParams["application_name"] = string(why)
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectWithin(config)
	}
	noticeDeath(config)
	if why == forReceiving {
		// A handler whose context ends during a statement loses the statement, not the connection with its neighbours' work.
		config.BuildContextWatcherHandler = func(pg *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: pg, DeadlineDelay: 5 * time.Second}
		}
	}
	raw, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the connection %q: %w", why, unreachable(err))
	}
	own := &conn{Conn: raw}
	if err := own.setUp(ctx, c, config, why); err != nil {
		raw.Close(ctx)
		return nil, err
	}
	return own, nil
}

// setUp learns whether the session is the connection's own, and if so, makes its settings.
func (c *conn) setUp(ctx context.Context, client *Client, config *pgx.ConnConfig, why purpose) error {
	pid, ownPlans, err := meet(ctx, c.PgConn())
	if err != nil {
		return err
	}
	c.ownPlans = ownPlans
	if c.pooled, err = client.isPooled(ctx, config, c.PgConn(), pid); err != nil || c.pooled {
		return err
	}
	if err := c.set(ctx, settings[why]); err != nil || why != forReceiving {
		return err
	}
	if err := store.SetSession(ctx, c, plans, fetchPlans); err != nil {
		return fmt.Errorf("set up the connection: %w", err)
	}
	return nil
}

// set makes settings those of the session, as far as the server knows and allows them: together, and where it refuses
// that, one by one.
func (c *conn) set(ctx context.Context, settings [][2]string) error {
	var names, values []string
	for _, s := range settings {
		names, values = append(names, s[0]), append(values, s[1])
	}
	err := store.SetSession(ctx, c, names, values)
	for i := 0; err != nil && !connectionLost(err) && i < len(names); i++ {
		if one := store.SetSession(ctx, c, names[i:i+1], values[i:i+1]); connectionLost(one) {
			err = one
		}
	}
	if connectionLost(err) {
		return fmt.Errorf("set up the connection: %w", err)
	}
	return nil
}

// setPlans gives a HandleTx handler the planner as the server has it, and takes it back, to the end of the transaction.
const setPlans = `SELECT set_config('enable_seqscan', $1, true), set_config('enable_bitmapscan', $2, true),
	set_config('enable_sort', $3, true), set_config('plan_cache_mode', $4, true)`

// backoff waits between attempts to reach the database: 50 ms, doubling to 5 s, with jitter, so that the processes of a
// fleet do not come back all at once.
type backoff struct{ d time.Duration }

// wait returns at once when ctx ends.
func (b *backoff) wait(ctx context.Context) {
	b.d = min(max(2*b.d, 50*time.Millisecond), 5*time.Second)
	timer := time.NewTimer(b.d/2 + time.Duration(defaultRand()*float64(b.d/2)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (b *backoff) reset() { b.d = 0 }
