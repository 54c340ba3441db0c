package ops

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// The versions of PostgreSQL that sqlq is tested with.
const oldestServer, newestServer = 14, 18

func (e *examination) checkServer(context.Context) (found []Finding, err error) {
	switch major := e.server.Version / 10_000; {
	case major < oldestServer:
		found = append(found, problem(foundServerOld, Subject{}, fmt.Sprintf("the server is PostgreSQL %s", e.server.Text),
			fmt.Sprintf("sqlq needs PostgreSQL %d or newer", oldestServer), "upgrade the server"))
	case major > newestServer:
		found = append(found, note(foundServerUntested, Subject{}, fmt.Sprintf("the server is PostgreSQL %s", e.server.Text),
			fmt.Sprintf("this release of sqlq has been tested with %d to %d", oldestServer, newestServer), "look for a newer release of sqlq"))
	}
	switch {
	case e.server.Standby:
		found = append(found, problem(foundServerStandby, Subject{}, "the server is a standby",
			"nothing can be sent, handled or replayed there", "connect to the primary: name all hosts, and target_session_attrs=read-write, in the URL"))
	case e.server.ReadOnly:
		found = append(found, problem(foundServerReadOnly, Subject{"setting", "default_transaction_read_only"}, "transactions are read-only here: default_transaction_read_only is on",
			"nothing can be sent, handled or replayed",
			fmt.Sprintf("ALTER ROLE %s RESET default_transaction_read_only; or the same of the database, or of the server", ident(e.server.User))).inSQL())
	}
	return found, nil
}

// alone opens a connection of doctor's own, to where the pool's go.
func (e *examination) alone(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, e.pool.Config().ConnConfig)
}

// listening returns where DoctorOptions.ListenURL leads; nil: there is none.
func listening(options DoctorOptions) (*pgx.ConnConfig, error) {
	if options.ListenURL == "" {
		return nil, nil
	}
	config, err := pgxpool.ParseConfig(options.ListenURL) // takes the settings of a pool too, as Config.ListenURL does
	if err != nil {
		return nil, fmt.Errorf("ListenURL: %w", err)
	}
	return config.ConnConfig, nil
}

// listener opens the connection on which notifications are waited for.
func (e *examination) listener(ctx context.Context) (*pgx.Conn, error) {
	if e.listening == nil {
		return e.alone(ctx)
	}
	return pgx.ConnectConfig(ctx, e.listening)
}

func (e *examination) checkPooler(ctx context.Context) ([]Finding, error) {
	conn, err := e.alone(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	pid, err := store.BackendPID(ctx, conn.PgConn())
	if err != nil {
		return nil, err
	}
	if e.pooled, err = store.Pooled(ctx, e.pool.Config().ConnConfig, conn.PgConn(), pid); err != nil || !e.pooled {
		return nil, err
	}
	const what = "a transaction pooler, such as PgBouncer, stands between this program and the database"
	if e.listening != nil {
		return []Finding{note(foundPoolerBetween, Subject{}, what, "LISTEN does not work through it; endpoints that have this Config.ListenURL are woken past it: see listen", "")}, nil
	}
	return []Finding{warning(foundPoolerBetween, Subject{}, what,
		"LISTEN does not work through it, so endpoints that connect here poll and take up to a second to notice a message, and a crash is noticed by the heartbeat alone",
		"give endpoints Config.ListenURL, or this command --database-url, with an address that leads past the pooler; sending through it is fine. Where endpoints have one: sqlq doctor --listen-url URL")}, nil
}

// Pooled reports whether a transaction pooler stands between this program and the database.
func (o *Ops) Pooled(ctx context.Context) (bool, error) {
	e := &examination{core: o.core, DoctorOptions: DoctorOptions{}.withDefaults()}
	bounded, cancel := context.WithTimeout(ctx, e.Within)
	defer cancel()
	_, err := e.checkPooler(bounded)
	return e.pooled, err
}

// Session is what a server says of itself and of who is connected.
type Session struct {
	Server    string // version, as the server writes it
	Database  string // its name
	User      string // who logged in
	Role      string // in whose name statements run
	Owner     string // of the schema; "": there is no schema
	Superuser bool   // the role may do everything
	Encrypted bool   // from here to what answers
}

// Session asks the server what it is, and who is connected.
func (o *Ops) Session(ctx context.Context) (Session, error) {
	s, err := o.store.Server(ctx, o.pool)
	if err != nil {
		return Session{}, fmt.Errorf("ask the server what it is: %w", err)
	}
	_, _, owner, err := o.store.Exists(ctx, o.pool)
	if err != nil {
		return Session{}, fmt.Errorf("look for schema %q: %w", o.store.Name(), err)
	}
	return Session{s.Text, s.Database, s.User, s.Role, owner, s.Superuser, s.Encrypted}, nil
}

func (e *examination) checkListen(ctx context.Context) ([]Finding, error) {
	switch {
	case e.pooled && e.listening == nil:
		return nil, &cannotCheckError{"not through a transaction pooler: whoever connects here polls"}
	case e.server.Standby:
		return nil, &cannotCheckError{"not on a standby"}
	}
	conn, err := e.listener(ctx)
	if err != nil && e.listening != nil && ctx.Err() == nil {
		return []Finding{problem(foundListenRefused, Subject{}, "no connection to listen on: "+oneLine(err.Error()),
			"endpoints with this Config.ListenURL poll, and take up to a second to notice a message", "correct the URL, or let its user in")}, nil
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	channel := fmt.Sprintf("sqlq_doctor_%016x", rand.Uint64())
	if err := e.store.Listen(ctx, conn, channel); err != nil {
		return nil, err
	}
	if err := e.store.Wakeups.Notify(ctx, e.pool, []string{channel}); err != nil {
		return nil, err
	}
	if _, err := conn.WaitForNotification(ctx); err != nil && ctx.Err() == nil {
		return nil, err
	} else if err != nil && e.listening != nil {
		return []Finding{problem(foundNotificationLost, Subject{}, fmt.Sprintf("a notification did not arrive within %s", e.Within),
			"endpoints with this Config.ListenURL do not notice new messages until they poll",
			"let it lead to the same database, and not through a pooler; see also whether the server's notification queue is full: SELECT pg_notification_queue_usage()")}, nil
	} else if err != nil {
		return []Finding{problem(foundNotificationLost, Subject{}, fmt.Sprintf("a notification did not arrive within %s", e.Within),
			"endpoints do not notice new messages until they poll",
			"see what stands between this program and the server, and whether the server's notification queue is full: SELECT pg_notification_queue_usage()")}, nil
	}
	return nil, nil
}

func (e *examination) checkConnections(ctx context.Context) (found []Finding, err error) {
	limits, err := e.store.Usage(ctx, e.pool)
	for _, l := range limits {
		left := max(0, l.Most-l.Used)
		if left >= max(3, l.Most/10) {
			continue
		}
		reserved := ""
		if l.Reserved > 0 {
			reserved = fmt.Sprintf(" (%d more are reserved)", l.Reserved)
		}
		f := warning(foundConnectionsFew, Subject{"limit", l.Limit}, fmt.Sprintf("%d of %d connections are left under %s%s", left, l.Most, l.Limit, reserved),
			"a process that starts, or reconnects after a failure, may be refused",
			"give processes smaller pools, put a pooler in between, or raise the limit; who has them: "+query.WhoIsConnectedSQL)
		if left == 0 {
			f.Severity = SeverityProblem
		}
		found = append(found, f)
	}
	return found, err
}

// probeAgain is after how long a lock is looked for again: senders have the sleeper's for microseconds.
const probeAgain = 200 * time.Millisecond

// checkLocks finds sessions that keep advisory locks of the library's, which every role of the database can take.
func (e *examination) checkLocks(ctx context.Context) (found []Finding, err error) {
	first, err := e.store.Sessions.Strangers(ctx, e.pool)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	select {
	case <-time.After(probeAgain):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	again, err := e.store.Sessions.Strangers(ctx, e.pool)
	if err != nil {
		return nil, err
	}
	locks := map[string]struct {
		kind FindingKind
		cost string
	}{
		store.LockSleeper: {foundLockSleeperHeld, "no endpoint can sleep on that queue: its instances look every second instead of being woken, and each sender notifies"},
		store.LockWatch:   {foundLockWatchHeld, "no instance can keep the watch over that queue: all look every second instead of being woken"},
		store.LockLead:    {foundLockLeaderHeld, "no process leads by it: the one of the oldest instance moves delayed messages, and others when they are late"},
		store.LockAlive:   {foundLockAliveHeld, "a process cannot show by it that it lives, or goes on to look alive when it is dead, until its heartbeat is too old"},
		store.LockQueues:  {foundLockQueuesHeld, "making and dropping queues, and granting, wait until that session lets go"},
	}
	for _, s := range again {
		if !slices.Contains(first, s) {
			continue
		}
		held, about, of := locks[s.Lock], Subject{}, ""
		switch s.Lock {
		case store.LockSleeper, store.LockWatch:
			about, of = Subject{"queue", s.Queue}, fmt.Sprintf(" of queue %q", s.Queue)
		case store.LockAlive:
			about, of = Subject{"process", fmt.Sprint(s.Number)}, fmt.Sprintf(" of process %d", s.Number)
		}
		if s.PID == 0 {
			found = append(found, warning(held.kind, about, fmt.Sprintf("a prepared transaction holds the advisory lock %q%s", s.Lock, of), held.cost,
				"end it: see pg_prepared_xacts"))
			continue
		}
		found = append(found, warning(held.kind, about, fmt.Sprintf("backend %d (application %s, user %q), which is none of sqlq's, holds the advisory lock %q%s",
			s.PID, oneLine(fmt.Sprintf("%q", s.Application)), s.User, s.Lock, of), held.cost, query.EndSessionSQL(s.PID)).inSQL())
	}
	return found, nil
}

func (e *examination) checkMigrations(ctx context.Context) ([]Finding, error) {
	name := e.store.Name()
	up := "sqlq migrate up" + inSchema(name)
	switch {
	case e.missing():
		return []Finding{problem(foundSchemaMissing, Subject{}, fmt.Sprintf("schema %q has no sqlq tables", name), "there is nothing to send to", up)}, nil
	case !e.may || e.version == 0:
		return nil, &cannotCheckError{fmt.Sprintf("role %q may not read the version of schema %q", e.server.Role, name)}
	case e.WantVersion == 0 || e.version == e.WantVersion || e.served:
		return e.checkPinned(ctx)
	case e.version < e.WantVersion:
		return []Finding{problem(foundSchemaOld, Subject{}, fmt.Sprintf("schema %q has version %d, this program needs %d", name, e.version, e.WantVersion),
			"programs of this release refuse to work with it", up)}, nil
	}
	return []Finding{problem(foundSchemaNew, Subject{}, fmt.Sprintf("schema %q has version %d, this program knows %d", name, e.version, e.WantVersion),
		"programs of this release refuse to work with it", "use a newer release of sqlq")}, nil
}

// ident quotes a name for SQL that people read: only where it must be.
func ident(name string) string {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && name != "" && (name[0] > '9') {
		return name
	}
	return pgx.Identifier{name}.Sanitize()
}
