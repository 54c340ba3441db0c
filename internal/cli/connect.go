package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// database is a connected database. Close it.
type database struct {
	*ops.Ops
	pool   *pgxpool.Pool
	schema string
	where  string // names the database and its host
	kept   bool   // for the next round of a list that is watched, which closes it at the end
}

func (d *database) Close() {
	if !d.kept {
		d.pool.Close()
	}
}

// connect connects to the database and checks that the schema is one that this program knows.
func (e *env) connect(ctx context.Context) (*database, error) {
	if e.watched != nil {
		return e.watched, nil
	}
	d, err := e.connectAnySchema(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.checkSchema(ctx); err != nil {
		d.Close()
		return nil, err
	}
	if e.watching {
		e.watched, d.kept = d, true
	}
	return d, nil
}

// connectToChange is connect for a command that changes something: what it does is written down in the operator's name.
func (e *env) connectToChange(ctx context.Context, ch change) (*database, error) {
	d, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	d.Ops = d.Ops.By(actor(ch))
	return d, nil
}

// actor is who runs this program.
func actor(ch change) ops.Actor {
	host, _ := os.Hostname()
	who := ops.Actor{Host: host, Reason: ch.reason}
	if u, err := user.Current(); err == nil {
		who.OSUser = u.Username
	}
	return who
}

// connectAnySchema connects to the database, whatever there is in it. Its error has the exit code for that.
func (e *env) connectAnySchema(ctx context.Context) (*database, error) {
	if e.schema == "" {
		return nil, usageErrorf("--schema is empty: leave it out for sqlq's default, \"sqlq\"")
	}
	config, err := e.config()
	if err != nil {
		return nil, &codedError{code: exitConnect, err: err}
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, &codedError{code: exitConnect, err: fmt.Errorf("set up connections: %w", err)}
	}
	where := whereIs(config.ConnConfig)
	e.role = config.ConnConfig.User
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, fmt.Errorf("connect to %s: %w", where, ctx.Err())
		}
		return nil, &codedError{code: exitConnect, err: e.connectError(where, config.ConnConfig, err)}
	}
	return &database{Ops: ops.New(pool, e.schema), pool: pool, schema: e.schema, where: where}, nil
}

func (e *env) config() (*pgxpool.Config, error) {
	config, err := parsed(e.connString())
	if err != nil {
		return nil, err
	}
	config.MaxConns = 2
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing is prepared, so it works behind any pooler
	ops.PinText(config)                                            // which that mode reads
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 10 * time.Second
	}
	pinned(config.ConnConfig)
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "sqlq"
	}
	return config, nil
}

// pinned has sessions write times and texts as programs read them, whatever the role, the database or the URL says. These are
// the settings that every pooler lets through, because drivers of all languages send them; nothing here relies on others.
func pinned(c *pgx.ConnConfig) {
	for name, value := range map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO, YMD", "TimeZone": "UTC"} {
		for given := range c.RuntimeParams {
			if strings.EqualFold(given, name) {
				delete(c.RuntimeParams, given)
			}
		}
		c.RuntimeParams[name] = value
	}
}

// parsed reads a connection string that comes from source. Its errors show no part of it that may be a password.
func parsed(url, source string) (*pgxpool.Config, error) {
	// Only with these the text is read as a URL. Any other would become the name of a setting, password and all.
	if scheme, _, found := strings.Cut(url, "://"); found && !strings.Contains(scheme, "=") && scheme != "postgres" && scheme != "postgresql" {
		return nil, fmt.Errorf("%s is not a PostgreSQL URL: it must begin with postgres:// or postgresql://", source)
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		// The error quotes the text. What it says comes after that, and the text may hold a password.
		why := err.Error()
		if i := strings.LastIndex(why, "`: "); i >= 0 {
			why = why[i+len("`: "):]
		}
		// What it quotes may be a part of one, too, where there is a blank in it.
		if first, last := strings.Index(why, `"`), strings.LastIndex(why, `"`); first < last {
			why = why[:first] + "…" + why[last+1:]
		}
		return nil, fmt.Errorf("%s cannot be understood: %s; write postgres://user@host:5432/database", source, why)
	}
	if strings.Contains(config.ConnConfig.Host+config.ConnConfig.Database, "@") {
		// What stands before the @ belongs to the password, and must not be shown as if it were a host.
		return nil, fmt.Errorf("%s cannot be understood: write @, / and : in the password as %%40, %%2F and %%3A", source)
	}
	return config, nil
}

// connString returns the connection string and where it comes from; "" leaves everything to the PG* variables.
func (e *env) connString() (value, source string) {
	if e.databaseURL != "" {
		return e.databaseURL, "--database-url"
	}
	for _, name := range []string{"SQLQ_DATABASE_URL", "DATABASE_URL"} {
		if v := os.Getenv(name); v != "" {
			return v, "$" + name
		}
	}
	return "", "what the PG* variables say"
}

// configured says whether anything names a database.
func (e *env) configured() bool {
	url, _ := e.connString()
	return url != "" || slices.ContainsFunc([]string{"PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"}, func(name string) bool {
		return os.Getenv(name) != ""
	})
}

// whereIs names a database and its host, without user and password.
func whereIs(c *pgx.ConnConfig) string {
	name := c.Database
	if name == "" {
		name = c.User // the server's own rule
	}
	hosts := []string{hostPort(c.Host, c.Port)}
	for _, f := range c.Fallbacks {
		if h := hostPort(f.Host, f.Port); !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	return fmt.Sprintf("database %q on %s", name, strings.Join(hosts, " or "))
}

func hostPort(host string, port uint16) string {
	if strings.HasPrefix(host, "/") {
		return "socket " + host
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

func (d *database) checkSchema(ctx context.Context) error {
	have, exists, err := d.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	up, want, oldest := migrateUp(d.schema), migrations.Latest(), int64(0)
	if have > want {
		if oldest, err = d.OldestProgram(ctx); err != nil {
			return err
		}
	}
	switch {
	case !exists:
		return fmt.Errorf("schema %q of %s has no sqlq tables; make them with: %s", d.schema, d.where, up)
	case have < migrations.First():
		return d.preRelease()
	case have < want:
		return fmt.Errorf("schema %q of %s has version %d, this program needs %d; bring it there with: %s", d.schema, d.where, have, want, up)
	case oldest > want: // else it serves this program still
		return d.newer(have)
	}
	return nil
}

// preRelease is the error of a schema that no release has made.
func (d *database) preRelease() error {
	return fmt.Errorf("schema %q of %s was made by a release before the first one and cannot be migrated: let its programs handle what is waiting, or export it with that release; then drop the schema and: %s. Or take another schema",
		d.schema, d.where, migrateUp(d.schema))
}

// newer is the error of a schema that this program does not know.
func (d *database) newer(have int64) error {
	return fmt.Errorf("schema %q of %s has version %d, this program knows %d; use a newer release of sqlq", d.schema, d.where, have, migrations.Latest())
}

// migrateUp is the command that makes or mends a schema.
func migrateUp(schema string) string {
	if schema == defaultSchema {
		return "sqlq migrate up"
	}
	return "sqlq migrate up --schema " + shellWord(schema)
}
