package sqlq_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// The first keys of the advisory locks of a queue.
const (
	sleeperLock = 1936813169
	watchLock   = 1936813170
)

// stranger is a session of a role that was granted nothing at all.
func stranger(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	_, pool := newRole(t, url, "stranger_")
	config := pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "a stranger"
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// lockKeyOf is the key of a table in the library's advisory locks.
func lockKeyOf(t *testing.T, pool *pgxpool.Pool, table string) int32 {
	t.Helper()
	return int32(count(t, pool, `SELECT ($1::text::regclass::oid::bigint - 2147483648)::int`, table))
}

func takeLock(t *testing.T, conn *pgx.Conn, first, second int32) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock($1::int, $2::int)`, first, second); err != nil {
		t.Fatal(err)
	}
}

// letGo ends a stranger's session.
func letGo(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// strangerSays are the texts that the log has of a stranger.
func strangerSays(t *testing.T, said *logged, pid uint32) {
	t.Helper()
	eventually(t, "the log says who holds the lock", func() (bool, string) {
		text := said.all()
		return strings.Contains(text, fmt.Sprint("pid=", pid)) && strings.Contains(text, `application="a stranger"`) && strings.Contains(text, "user=stranger_"), text
	})
}

// postOffice is a process that handles letters, and reports when.
type postOffice struct {
	*sqlq.Client
	stop    func()
	handled chan time.Time
}

func runPost(t *testing.T, pool *pgxpool.Pool, config sqlq.Config, names ...string) *postOffice {
	t.Helper()
	p := &postOffice{Client: open(t, pool, config), handled: make(chan time.Time, 1_000)}
	var endpoints []sqlq.Endpoint
	for i, name := range names {
		h := sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { p.handled <- time.Now(); return nil })
		if i > 0 { // a command has one endpoint in a process
			h = sqlq.Handle(func(context.Context, *sqlq.Delivery[voucher]) error { return nil })
		}
		if i > 1 {
			t.Fatal("two endpoints at most")
		}
		endpoints = append(endpoints, sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{h}})
	}
	p.stop = run(t, p.Client, endpoints...)
	return p
}

// soon wants a letter handled soon after it was sent.
func (p *postOffice) soon(t *testing.T, within time.Duration, send func() error) {
	t.Helper()
	if err := send(); err != nil {
		t.Fatal(err)
	}
	sent := time.Now()
	select {
	case at := <-p.handled:
		if took := at.Sub(sent); took > within {
			t.Errorf("a message was handled after %v, want %v at most", took, within)
		}
	case <-time.After(patience):
		t.Fatalf("a message is not handled after %v", patience)
	}
}

// pollsWithin is how soon a message is handled that nobody is woken for: polls are a second and a half apart at most, and the
// machine may be busy.
const pollsWithin = 3 * time.Second

// Every role of a database can take advisory locks and keep them. It costs being woken, never the messages, and is said.
func TestStrangerHoldsALock(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]int32{"the sleeper's": sleeperLock, "the watch": watchLock} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			pool := poolOn(t, url)
			execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
			him := stranger(t, url)
			takeLock(t, him, first, lockKeyOf(t, pool, "sqlq.q_post"))
			var said logged
			p := runPost(t, pool, sqlq.Config{Logger: said.logger()}, "post")
			sender := open(t, pool, sqlq.Config{})
			for range 3 {
				eventually(t, "it looks by itself", func() (bool, string) {
					how := statsOf(p.Client).Waits
					return how == sqlq.Polls || how == sqlq.OnCall, fmt.Sprint(how)
				})
				p.soon(t, pollsWithin, func() error { return sender.Send(t.Context(), letter{}, sqlq.To("post")) })
			}
			strangerSays(t, &said, him.PgConn().PID())
			if n := strings.Count(said.all(), "WARN"); n != 1 {
				t.Errorf("%d warnings, want one:\n%s", n, said.all())
			}
			letGo(t, him)
			eventually(t, "senders wake it again", func() (bool, string) { return asleep(t, pool, "sqlq", "post") == 1, "" })
		})
	}
	t.Run("the leader's", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Database(t)
		pool := poolOn(t, url)
		execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
		him := stranger(t, url)
		takeLock(t, him, lockKeyOf(t, pool, "sqlq.instance"), 0)
		var said logged
		p := runPost(t, pool, sqlq.Config{Logger: said.logger()}, "post")
		sender := open(t, pool, sqlq.Config{})
		for range 3 {
			p.soon(t, pollsWithin, func() error {
				return sender.Send(t.Context(), letter{}, sqlq.To("post"), sqlq.Delay(10*time.Millisecond))
			})
		}
		strangerSays(t, &said, him.PgConn().PID())
		letGo(t, him)
		eventuallyCount(t, pool, 1, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE locktype = 'advisory' AND datname = current_database() AND application_name = 'sqlq keep' AND objid = 0 AND mode = 'ExclusiveLock'`)
	})
	t.Run("that of a process, before it starts", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Database(t)
		pool := poolOn(t, url)
		execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
		him := stranger(t, url)
		takeLock(t, him, lockKeyOf(t, pool, "sqlq.instance"), 1)
		var said logged
		p := runPost(t, pool, sqlq.Config{Logger: said.logger()}, "post")
		p.soon(t, pollsWithin, func() error { return open(t, pool, sqlq.Config{}).Send(t.Context(), letter{}, sqlq.To("post")) })
		if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE NOT session_lock`); n != 1 {
			t.Errorf("%d instances say that there is no lock, want 1", n)
		}
		if !strings.Contains(said.all(), "heartbeat alone") {
			t.Errorf("the log does not say it:\n%s", said.all())
		}
	})
	t.Run("that of a process, when it reconnects", func(t *testing.T) {
		t.Parallel()
		url := pgtest.Database(t)
		pool := poolOn(t, url)
		execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
		var said logged
		p := runPost(t, pool, sqlq.Config{Logger: said.logger()}, "post")
		eventually(t, "it sleeps", func() (bool, string) { return asleep(t, pool, "sqlq", "post") == 1, "" })
		him, key := stranger(t, url), lockKeyOf(t, pool, "sqlq.instance")
		waits := make(chan struct{})
		go func() { defer close(waits); takeLock(t, him, key, 1) }()
		const own = `FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND datname = current_database() AND application_name LIKE 'sqlq %' AND objid = 1`
		eventuallyCount(t, pool, 1, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 1`)
		execSQL(t, pool, `SELECT pg_terminate_backend(pid) `+own)
		<-waits
		sender := open(t, pool, sqlq.Config{})
		p.soon(t, pollsWithin, func() error { return sender.Send(t.Context(), letter{}, sqlq.To("post")) })
		strangerSays(t, &said, him.PgConn().PID())
		letGo(t, him)
		eventuallyCount(t, pool, 2, `SELECT count(*) `+own)
		if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE crashed_at IS NULL`); n != 1 {
			t.Error("the instance was thought dead")
		}
	})
}

// Whoever locks one queue's table keeps nobody from polling the others.
func TestPollPassesOverALockedTable(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('post'), sqlq.create_queue('locked')`)
	p := runPost(t, pool, sqlq.Config{PollInterval: 200 * time.Millisecond}, "post", "locked")
	eventually(t, "both sleep", func() (bool, string) {
		return asleep(t, pool, "sqlq", "post")+asleep(t, pool, "sqlq", "locked") == 2, ""
	})
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	if _, err := tx.Exec(t.Context(), `LOCK TABLE sqlq.q_locked`); err != nil {
		t.Fatal(err)
	}
	for range 3 { // without a wake-up
		p.soon(t, 2*pollsWithin, func() error {
			_, err := pool.Exec(t.Context(), `INSERT INTO sqlq.q_post (id, type, body) VALUES (gen_random_uuid(), 'post.Letter', '{}')`)
			return err
		})
	}
}
