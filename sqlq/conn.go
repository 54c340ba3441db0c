package sqlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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
//
// Handlers' SQL runs on receive connections, so there only the form of what comes back is set (which pgx must be able to read
// in the modes that use text), and nothing that changes what a statement means: "ISO" alone leaves the order of day and month.
var settings = map[purpose][][2]string{
	forReceiving: append([][2]string{
		{"default_transaction_isolation", "read committed"},
		// A frozen client would hold its rows for as long as the server waits for it.
		{"idle_in_transaction_session_timeout", "10s"},
		{"client_connection_check_interval", "5s"},
		{"jit", "off"},
	}, always...),
	forListening: append([][2]string{{"default_transaction_isolation", "read committed"}}, slices.Concat(always, text)...),
	forKeeping: append([][2]string{
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

// plans are the settings under which a fetch is planned: a queue's statistics are wrong most of the time, and its
// primary key is right always. HandleTx handlers run with the server's own instead.
var plans = []string{"enable_seqscan", "enable_bitmapscan", "enable_sort", "plan_cache_mode"}

var fetchPlans = []string{"off", "off", "off", "force_generic_plan"}

// conn is a connection of the library's own.
type conn struct {
	*pgx.Conn
	ownPlans []string // what the server had for plans
	pooled   bool     // through a transaction pooler: the session is not this connection's

	state string // the state of the session as the last transaction left it, as the SQL expression seen found it
	seen  string

	statements map[string]*statement // what is known of handlers' SQL
	late       bool                  // pgx encodes the arguments of a batch when it has sent a part of it
	encoder    pgx.ExtendedQueryBuilder
}

func (c *Client) connect(ctx context.Context, why purpose) (*conn, error) {
	config, afterConnect, err := c.connConfig(ctx, why)
	if err != nil {
		return nil, fmt.Errorf("open the connection %q: %w", why, err)
	}
	raw, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the connection %q: %w", why, unreachable(err))
	}
	own := &conn{Conn: raw, late: encodesLate(config.DefaultQueryExecMode)}
	if err := own.setUp(ctx, c, config, afterConnect, why); err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		raw.Close(closing)
		return nil, fmt.Errorf("open the connection %q: %w", why, err)
	}
	return own, nil
}

// encodesLate reports whether, with a query mode, pgx encodes the arguments of a batch when it has sent a part of it.
func encodesLate(mode pgx.QueryExecMode) bool {
	return mode != pgx.QueryExecModeExec && mode != pgx.QueryExecModeSimpleProtocol
}

// setUp learns whether the session is the connection's own, has the program set up what it sets up on those of its pool, and
// then, so that it counts, makes the library's settings, if the session is its own.
func (c *conn) setUp(ctx context.Context, client *Client, config *pgx.ConnConfig, afterConnect func(context.Context, *pgx.Conn) error, why purpose) error {
	pid, _, err := meet(ctx, c.PgConn())
	if err != nil {
		return err
	}
	if c.pooled, err = client.isPooled(ctx, config, c.PgConn(), pid); err != nil {
		return err
	}
	if afterConnect != nil {
		if err := c.prepareAs(ctx, afterConnect); err != nil {
			return err
		}
	}
	if _, c.ownPlans, err = meet(ctx, c.PgConn()); err != nil || c.pooled { // AfterConnect may have set them
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

// prepareAs runs the pool's AfterConnect. What it listens for is the program's own connections' to hear.
func (c *conn) prepareAs(ctx context.Context, afterConnect func(context.Context, *pgx.Conn) error) error {
	hook, cancel := context.WithTimeout(ctx, hookWithin)
	defer cancel()
	if err := afterConnect(hook, c.Conn); err != nil {
		return fmt.Errorf("the pool's AfterConnect: %w", err)
	}
	if c.IsClosed() || c.PgConn().TxStatus() != 'I' {
		return errors.New("the pool's AfterConnect left the connection closed or in a transaction")
	}
	if c.pooled {
		return nil
	}
	if _, err := c.PgConn().Exec(ctx, `UNLISTEN *`).ReadAll(); err != nil {
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

// backoff waits between attempts: 50 ms, doubling to 5 s or to mostBackoff, with jitter, so that the processes of a fleet do
// not come back all at once.
type backoff struct{ d time.Duration }

// wait returns at once when ctx ends.
func (b *backoff) wait(ctx context.Context) { b.waitFor(ctx, nil, 5*time.Second) }

// waitFor waits no longer than most, and returns at once when ctx ends or there is news.
func (b *backoff) waitFor(ctx context.Context, news <-chan struct{}, most time.Duration) {
	b.d = min(max(2*b.d, 50*time.Millisecond), most)
	timer := time.NewTimer(b.d/2 + time.Duration(defaultRand()*float64(b.d/2)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-news:
	case <-timer.C:
	}
}

func (b *backoff) reset() { b.d = 0 }
