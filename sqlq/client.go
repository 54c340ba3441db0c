package sqlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/internal/sending"
	"github.com/sqlq/sqlq/sqlq/internal/session"
	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// Client sends messages, and handles them with Run or Start. [Open] one for each process and database. It is safe for concurrent
// use.
type Client struct {
	config Config
	pool   *pgxpool.Pool
	store  *store.Schema
	log    *slog.Logger
	routes routes
	wakes  *sending.Wakes
	sender *sending.Sender

	settings settingNames // that HandleTx handlers may change

	connector session.Connector

	closed atomic.Bool
	mu     sync.Mutex
	runner *runner // while endpoints run

	pulls pulls // by Receive
}

// minPool is the least MaxConns of the pool.
const minPool = 2

// Open returns a Client that sends through the pool. Run receives on connections of its own, made with the pool's
// settings, BeforeConnect and AfterConnect. Of the callbacks in its ConnConfig they use those for connecting
// (DialFunc, ValidateConnect and the like) and, for what HandleTx handlers run, the Tracer. Open checks the configuration and the
// schema, and starts nothing. The pool stays the caller's, who closes it after the Client.
//
// Errors: ErrSchemaMissing, ErrSchemaOutdated, ErrSchemaNewer, ErrEncoding, ErrTooFewConnections, ErrUnsafeExecMode,
// ErrPermissionDenied, errors in the Config, and those of the database. They say what to do.
func Open(ctx context.Context, pool *pgxpool.Pool, config Config) (*Client, error) {
	config = config.withDefaults().clone()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if pool == nil {
		return nil, errors.New("open: the pool is nil: create one with pgxpool.New, and check its error")
	}
	if n := pool.Config().MaxConns; n < minPool {
		return nil, fmt.Errorf("open: %w: the pool has MaxConns %d; a sender that waits for a connection while it holds one would wait for ever: allow at least %d (pool_max_conns in the pool's URL)", ErrTooFewConnections, n, minPool)
	}
	c := &Client{config: config, pool: pool, store: store.New(config.Schema), log: config.Logger}
	c.routes.byType = config.Routes // Open's own copy
	c.wakes = sending.NewWakes(c.store, pool, c.log)
	c.sender = sending.New(c.store, pool, c.wakes)
	c.connector.Pool, c.connector.ListenURL, c.connector.OfHandler = pool, config.ListenURL, isOfHandler
	if config := pool.Config().ConnConfig; config.ConnectTimeout == 0 && session.HasSeveralHosts(config) {
		c.log.Warn("sqlq: the pool has several hosts and no connect_timeout: when one of them is cut off, sends wait for it as long as the operating system does, which can be minutes; add connect_timeout=3 to its URL")
	}
	if unsafe, err := session.HasUnsafeExecMode(ctx, pool); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	} else if unsafe {
		return nil, fmt.Errorf("open: %w", ErrUnsafeExecMode)
	}
	if err := c.checkSchema(ctx); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := c.checkEncoding(ctx); err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return c, nil
}

// Close closes the Client: what Run and Start have taken up drains, and Close waits for it. Later calls return ErrClosed, except calls by handlers
// that are still running.
//
// When ctx ends the drain is cut short: the contexts of running handlers are cancelled, and their messages go back at
// once without using up an attempt, as at the end of Config.DrainTimeout. Close waits for that too, which takes a moment or, if a
// handler ignores its context, some seconds (17 at most), and returns the error of ctx. If ctx has ended already, no handler is
// waited for. So a service drains at the first signal and cuts that short at the second one like this, where ctx is the
// context of Run and ends at the first:
//
//	context.AfterFunc(ctx, func() {
//		again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
//		defer stop()
//		_ = client.Close(again)
//	})
//
// If other parts of the program send until they have ended too, wait for again.Done() before Close: until then the Client is open.
func (c *Client) Close(ctx context.Context) error {
	c.closed.Store(true)
	c.mu.Lock()
	var groups []*group
	if c.runner != nil {
		groups = c.runner.groups
	}
	c.mu.Unlock()
	for _, g := range groups {
		g.stop()
	}
	if err := awaitEnd(ctx, groups...); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

func (c *Client) checkSchema(ctx context.Context) error {
	have, exists, err := c.store.Version(ctx, c.pool)
	want, name, oldest := migrations.Latest(), c.config.Schema, int64(0)
	if err == nil && have > want {
		oldest, err = c.store.OldestLibrary(ctx, c.pool)
	}
	switch {
	case errors.Is(err, store.ErrHidden):
		return fmt.Errorf("check schema %q: %w: %w; switch it off: ALTER TABLE %s DISABLE ROW LEVEL SECURITY", name, ErrPermissionDenied, err,
			pgx.Identifier{name, "sqlq_migration"}.Sanitize())
	case session.State(err) == session.InsufficientPrivilege:
		return fmt.Errorf("check schema %q: %w (%s): %w", name, ErrPermissionDenied, c.grant("producer"), err)
	case err != nil:
		return fmt.Errorf("check schema %q: %w", name, session.ExplainPooler(session.Unreachable(err)))
	case !exists:
		return fmt.Errorf("%w: no tables in schema %q: run `sqlq migrate up --schema %s`", ErrSchemaMissing, name, shellWord(name))
	case have < migrations.First():
		return fmt.Errorf("%w: schema %q was made by a release before the first one and cannot be migrated: let its programs handle what is waiting, or export it with that release; then DROP SCHEMA %s CASCADE and run `sqlq migrate up --schema %s`, or take another schema",
			ErrSchemaOutdated, name, pgx.Identifier{name}.Sanitize(), shellWord(name))
	case have < want:
		return fmt.Errorf("%w: schema %q has version %d, this library needs %d: run `sqlq migrate up --schema %s`", ErrSchemaOutdated, name, have, want, shellWord(name))
	case oldest > want: // else it serves this library still
		return fmt.Errorf("%w: schema %q has version %d and serves programs from %d on, this library was built for %d: use a newer release of the library", ErrSchemaNewer, name, have, oldest, want)
	}
	return nil
}

// checkEncoding refuses what would change headers and other text on their way. Bodies are bytes.
func (c *Client) checkEncoding(ctx context.Context) error {
	server, client, err := c.store.Sessions.Encodings(ctx, c.pool)
	switch {
	case err != nil:
		return fmt.Errorf("ask for the encoding: %w", err)
	case server == "SQL_ASCII": // which takes bytes as they are, from any client
		return nil
	case server != "UTF8":
		return fmt.Errorf("%w: the database has the encoding %s; take one that was made with ENCODING 'UTF8'", ErrEncoding, server)
	case client != "UTF8" && client != "SQL_ASCII":
		return fmt.Errorf("%w: the pool's connections have client_encoding %s, and Go's text is UTF8; take the setting away (ALTER ROLE or DATABASE … RESET client_encoding)", ErrEncoding, client)
	}
	return nil
}

// grant advises how the role of the pool becomes what it is not, for some queues or, with none named, for all.
func (c *Client) grant(kind string, queues ...string) string {
	var more string
	if len(queues) > 0 {
		more = ", " + sqlArray(queues)
	}
	return c.callGrantRole(kind, more)
}

// grantEvents advises how the role of the pool may subscribe a queue of which it is a consumer.
func (c *Client) grantEvents(queue string, events []string) string {
	return c.callGrantRole("consumer", ", "+sqlArray([]string{queue})+", events => "+sqlArray(events))
}

func (c *Client) callGrantRole(kind, more string) string {
	return fmt.Sprintf("let the owner of the schema run: SELECT %s(%s, '%s'%s)", pgx.Identifier{c.config.Schema, "grant_role"}.Sanitize(),
		sqlString(c.pool.Config().ConnConfig.User), kind, more)
}

// sqlString writes a string as SQL that errors advise.
func sqlString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// sqlArray writes strings as SQL that errors advise.
func sqlArray(all []string) string {
	literals := make([]string, len(all))
	for i, s := range all {
		literals[i] = sqlString(s)
	}
	return "ARRAY[" + strings.Join(literals, ", ") + "]"
}

// shellWord writes a string as a word of the commands that errors advise.
func shellWord(s string) string {
	if checkQueueName(s) == nil {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// usable says whether a method that sends by itself may be called; what names it in the error.
func (c *Client) usable(ctx context.Context, what string, options []SendOption) error {
	if c.closedTo(ctx) {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	if !isOfHandler(ctx) {
		return nil
	}
	if o, _ := collect(options); o.immediately {
		return nil
	}
	return fmt.Errorf("%s: %w: use the delivery's Send or Publish, which take effect if and when the handler succeeds, or pass Immediately()", what, ErrInHandler)
}

// closedTo says whether the Client is closed to the caller. While Close drains, handlers still send.
func (c *Client) closedTo(ctx context.Context) bool {
	return c.closed.Load() && !isOfHandler(ctx)
}

// handlerContext marks the contexts of handlers.
type handlerContext struct{}

// isOfHandler reports whether a context is a handler's.
func isOfHandler(ctx context.Context) bool { return ctx.Value(handlerContext{}) != nil }

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
		return fmt.Errorf("%w: point it to database %q and its schema %q, past the pooler", ErrListenURLMismatch, c.pool.Config().ConnConfig.Database, c.config.Schema)
	}
	return nil
}
