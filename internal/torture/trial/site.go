package trial

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

const (
	database = "torture"
	role     = "app" // of the processes: an ordinary one, so that an administrator's limits count for it
)

// site is the server, with what the trial needs on it.
type site struct {
	server  *devpg.Server
	admin   *pgxpool.Pool // a superuser's, directly, and exempt from the settings that faults change
	proxies []*lab.Proxy
	disk    *disk // nil: none may be mounted here
}

// serverSettings: what was acknowledged must survive a SIGKILL of the server, so commits write their WAL; that the machine
// itself dies is no part of a trial, so nothing is flushed. Pages are written in full after a checkpoint, because a write
// of 8 kB can be torn by SIGKILL.
var serverSettings = map[string]string{
	"synchronous_commit": "on", "full_page_writes": "on", "max_connections": "90", "shared_buffers": "128MB",
	"max_wal_size": "1GB", "deadlock_timeout": "200ms", "log_min_messages": "fatal",
}

const businessTables = `
CREATE TABLE effect (call bigint PRIMARY KEY, queue text NOT NULL, k bigint NOT NULL, run int NOT NULL, attempt int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE effect_tx (queue text NOT NULL, k bigint NOT NULL, run int NOT NULL, attempt int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE sent (first bigint NOT NULL);
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full', MESSAGE = 'could not extend file: No space left on device'; END $$;`

func newSite(ctx context.Context, skew time.Duration) (*site, error) {
	env, err := skewed(skew)
	if err != nil {
		return nil, err
	}
	server, err := devpg.Start(ctx, devpg.Options{InMemory: true, Settings: serverSettings, Env: env})
	if err != nil {
		return nil, err
	}
	s := &site{server: server}
	if err := s.furnish(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// skewed returns the variables that put a server's clock ahead by so much. The processes are told nothing of it.
func skewed(by time.Duration) ([]string, error) {
	if by == 0 {
		return nil, nil
	}
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(found) == 0 {
		return nil, errors.New("a clock that is off takes libfaketime, which is not installed: apt-get install faketime")
	}
	return []string{"LD_PRELOAD=" + found[0], fmt.Sprintf("FAKETIME=%+ds", int(by.Seconds()))}, nil
}

func (s *site) furnish(ctx context.Context) error {
	super, err := pgx.Connect(ctx, s.server.URL(""))
	if err != nil {
		return err
	}
	defer super.Close(ctx)
	for _, sql := range []string{`CREATE ROLE ` + role + ` LOGIN`, `CREATE ROLE ` + strangerRole + ` LOGIN`, `CREATE DATABASE ` + database + ` OWNER ` + role} {
		if _, err := super.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if s.disk, err = newDisk(ctx, super, role); err != nil {
		return err
	}
	if err := migrate.Up(ctx, s.url(nil), "sqlq"); err != nil {
		return err
	}
	s.admin, err = lab.NewPool(ctx, s.server.URL(database), 12, map[string]string{
		"default_transaction_read_only": "off", "statement_timeout": "60s", "lock_timeout": "10s",
		"idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0", "application_name": "torture",
	})
	if err != nil {
		return err
	}
	app, err := pgx.Connect(ctx, s.url(nil))
	if err != nil {
		return err
	}
	defer app.Close(ctx)
	if _, err := app.Exec(ctx, businessTables); err != nil {
		return err
	}
	if s.disk != nil {
		if _, err := app.Exec(ctx, `SET default_tablespace = `+diskSpace); err != nil {
			return err
		}
	}
	for _, q := range queues {
		if _, err := app.Exec(ctx, `SELECT sqlq.create_queue($1)`, q); err != nil {
			return err
		}
	}
	if _, err := app.Exec(ctx, `SELECT sqlq.grant_role($1, 'producer')`, strangerRole); err != nil {
		return err
	}
	// Events that are sent before a subscriber's first start are to reach it.
	_, err = app.Exec(ctx, `INSERT INTO sqlq.subscription (type, queue) SELECT $1, unnest($2::text[])`, event{}.MessageType(), []string{hearsQueue, booksQueue})
	if err != nil {
		return err
	}
	for range 2 {
		p, err := lab.NewProxy(s.url(nil))
		if err != nil {
			return err
		}
		s.proxies = append(s.proxies, p)
	}
	return nil
}

// url is how processes reach the database, as the role, directly or through a proxy.
func (s *site) url(via *lab.Proxy) string { return s.urlOf(role, via) }

func (s *site) urlOf(role string, via *lab.Proxy) string {
	u, err := url.Parse(s.server.URL(database))
	if err != nil {
		panic(err) // devpg's own
	}
	u.User = url.User(role)
	query := u.Query()
	query.Set("connect_timeout", "5") // seconds: a fault may swallow what is said
	u.RawQuery = query.Encode()
	if via == nil {
		return u.String()
	}
	through, err := via.URL(u.String())
	if err != nil {
		panic(err) // devpg's own
	}
	return through
}

// proxied returns a random connection through one of the proxies.
func (s *site) proxied(random *rand.Rand) (*lab.Link, bool) {
	all := s.proxies[random.IntN(len(s.proxies))].Links()
	if len(all) == 0 {
		return nil, false
	}
	return all[random.IntN(len(all))], true
}

// insist runs a statement until it succeeds: the server may be down.
func (s *site) insist(ctx context.Context, sql string) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err := s.admin.Exec(bounded, sql)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// alone ends the sessions of processes that have ended, and returns when they are gone: a statement of a killed process
// runs on to its commit.
func (s *site) alone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var n int
		err := s.admin.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1`, role).Scan(&n)
		if err == nil && n == 0 {
			return nil
		}
		if lab.Sleep(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("end the sessions of the processes: %d are left: %w", n, errors.Join(err, ctx.Err()))
		}
	}
}

func (s *site) close() error {
	for _, p := range s.proxies {
		p.Close()
	}
	if s.admin != nil {
		s.admin.Close()
	}
	err := s.server.Stop()
	if s.disk != nil {
		err = errors.Join(err, s.disk.close())
	}
	return err
}
