package devpg

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// StandbyOptions says what standby Standby should start. The zero value is an asynchronous one.
type StandbyOptions struct {
	// Synchronous makes the primary wait: a commit is acknowledged only once the standby has it on disk, so it does not
	// return at all while the standby is down. The primary gets synchronous_commit = on and the standby's name in
	// synchronous_standby_names. Default: no commit waits, and a crash of the primary loses what was not sent yet.
	Synchronous bool
}

// standbys numbers the standbys of this process, for their names.
var standbys atomic.Int64

// Standby starts a streaming standby of the server, with its own folder and address, and returns once it streams and answers.
// It is a separate server: stop it like any other; it ends with this process like any other. The context limits only
// the start.
//
// A slot on the primary keeps the WAL that the standby does not have yet, so a standby that stays down fills the disk.
func (s *Server) Standby(ctx context.Context, o StandbyOptions) (*Server, error) {
	s.change.Lock() // the primary must not be restarted meanwhile
	defer s.change.Unlock()
	if err := s.checkOwned("copied"); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, s.URL(""))
	if err != nil {
		return nil, fmt.Errorf("create a standby: %w", err)
	}
	defer conn.Close(ctx)
	f, err := newFolder(filepath.Dir(s.folder.path), s.as)
	if err != nil {
		return nil, err
	}
	standby, err := s.startStandby(ctx, conn, f, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create a standby: %w", err), f.remove())
	}
	return standby, nil
}

func (s *Server) startStandby(ctx context.Context, conn *pgx.Conn, f *folder, o StandbyOptions) (*Server, error) {
	addr, err := newAddress(f, s.address.password != "")
	if err != nil {
		return nil, err
	}
	addr.password = s.address.password // the roles are the primary's
	name := fmt.Sprintf("sqlq_standby_%d", standbys.Add(1))
	conf, err := s.standbyConfiguration(addr, name, o)
	if err != nil {
		return nil, err
	}
	// From here on the primary keeps all WAL that the copy will need.
	if _, err := conn.Exec(ctx, `SELECT pg_create_physical_replication_slot($1, true)`, name); err != nil {
		return nil, err
	}
	if err := backup(ctx, conn, s.Major(), f, s.folder); err != nil {
		return nil, err
	}
	// Not in postgresql.conf: what ALTER SYSTEM has written for the primary would override it.
	if err := errors.Join(f.write("data/postgresql.auto.conf", conf), f.write("data/standby.signal", "")); err != nil {
		return nil, err
	}
	log, err := f.create("log")
	if err != nil {
		return nil, fmt.Errorf("create the server's log: %w", err)
	}
	defer log.Close()
	standby := &Server{version: s.version, origin: s.origin, address: addr, folder: f, inst: s.inst, as: s.as}
	if err := standby.run(ctx, newRunner(f, s.as, log)); err != nil {
		return nil, err
	}
	if err := s.awaitStandby(ctx, conn, name, o); err != nil {
		standby.process.Load().abandon()
		return nil, fmt.Errorf("%w%s", err, f.logTail())
	}
	return standby, nil
}

func (s *Server) standbyConfiguration(a address, name string, o StandbyOptions) (string, error) {
	primary, err := pgx.ParseConfig(s.URL(""))
	if err != nil {
		return "", err
	}
	conninfo := fmt.Sprintf("host='%s' port=%d user=%s application_name=%s sslmode=disable", primary.Host, primary.Port, primary.User, name)
	if primary.Password != "" {
		conninfo += " password=" + primary.Password // letters and digits
	}
	settings := a.settings()
	settings["cluster_name"] = name
	settings["primary_conninfo"] = conninfo
	settings["primary_slot_name"] = name
	settings["synchronous_standby_names"] = "" // after its promotion it waits for no other server
	settings["hot_standby"] = "on"
	if o.Synchronous {
		settings["synchronous_commit"] = "on"
	}
	return settingLines(settings)
}

// awaitStandby returns once the standby streams and, if that was asked for, every commit on the primary waits for it.
func (s *Server) awaitStandby(ctx context.Context, conn *pgx.Conn, name string, o StandbyOptions) error {
	want := "async"
	if o.Synchronous {
		want = "sync"
		for _, statement := range []string{
			`ALTER SYSTEM SET synchronous_standby_names = ` + pgx.Identifier{name}.Sanitize(),
			`ALTER SYSTEM SET synchronous_commit = on`,
			`SELECT pg_reload_conf()`,
		} {
			if _, err := conn.Exec(ctx, statement); err != nil {
				return err
			}
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("it did not stream within %s", readyWithin))
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		var streams bool
		err := conn.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM pg_stat_replication
				WHERE application_name = $1 AND state = 'streaming' AND sync_state = $2)`, name, want).Scan(&streams)
		if err != nil || streams {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-again.C:
		}
	}
}

// promoteWithin is generous: a standby must first apply what it has received.
const promoteWithin = 60 * time.Second

// Promote makes a standby a primary, and returns once it accepts writes. It does not involve its primary, which may be dead
// or, dangerously, alive: then both accept writes, and neither knows of the other's.
func (s *Server) Promote(ctx context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.checkOwned("promoted"); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.URL(""))
	if err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	defer conn.Close(ctx)
	var done bool
	err = conn.QueryRow(ctx, `SELECT pg_promote(true, $1)`, int(promoteWithin.Seconds())).Scan(&done)
	if err == nil && !done {
		err = fmt.Errorf("not done within %s%s", promoteWithin, s.folder.logTail())
	}
	if err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	return nil
}
