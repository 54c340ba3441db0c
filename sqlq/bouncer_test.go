package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/bouncer"
	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// behindBouncer opens a pool on a fresh migrated database through PgBouncer, and one that goes past it.
func behindBouncer(t *testing.T, o bouncer.Options, parameters ...string) (through, past *pgxpool.Pool) {
	t.Helper()
	url := pgtest.Database(t)
	b := bouncer.Start(t, url, o)
	past = poolOn(t, url)
	return poolOn(t, b.URL(past.Config().ConnConfig.Database, parameters...)), past
}

// bouncerModes are pgx's modes that work through a transaction pooler.
var bouncerModes = []string{"exec", "simple_protocol", "cache_describe", "cache_statement"}

type (
	pooledPlain struct{ N int }
	pooledTx    struct{ N int }
	pooledEvent struct{ N int }
	pooledLate  struct{ N int }
)

func (pooledPlain) MessageType() string { return "pooled.Plain" }
func (pooledTx) MessageType() string    { return "pooled.Tx" }
func (pooledEvent) MessageType() string { return "pooled.Event" }
func (pooledEvent) IsEvent()            {}
func (pooledLate) MessageType() string  { return "pooled.Late" }

// Whatever can be sent and handled without a pooler can be through one, by polling, in every mode of pgx that is safe
// there.
func TestThroughBouncer(t *testing.T) {
	t.Parallel()
	bouncer.Need(t)
	for _, mode := range bouncerModes {
		if mode == "cache_statement" && !bouncer.KeepsStatements(t) {
			t.Log("this PgBouncer is older than 1.21: TestBouncerWithoutPreparedStatements shows what cache_statement gets from it")
			continue
		}
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode="+mode)
			execSQL(t, past, `CREATE TABLE effect (n int)`)
			var log logged
			c := open(t, through, sqlq.Config{Logger: log.logger(), Routes: map[string]string{
				"pooled.Plain": "pooled", "pooled.Tx": "pooled", "pooled.Late": "pooled"}})
			var plain, late, events atomic.Int64
			leased := make(chan struct{})
			endpoint := sqlq.Endpoint{Name: "pooled", Concurrency: 4, Handlers: []sqlq.Handler{
				sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[pooledPlain]) error {
					if d.Headers["n"] != fmt.Sprint(d.Message.N) {
						return sqlq.Unrecoverable(fmt.Errorf("headers %v with message %d", d.Headers, d.Message.N))
					}
					plain.Add(1)
					return nil
				}),
				sqlq.HandleTx(func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[pooledTx]) error {
					if _, err := tx.Exec(ctx, `INSERT INTO effect VALUES ($1)`, d.Message.N); err != nil {
						return err
					}
					if d.Message.N%5 == 0 && d.Attempt == 1 {
						return errors.New("not at once")
					}
					return nil
				}),
				sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[pooledLate]) error {
					if d.Message.N < 0 {
						<-leased
					}
					if d.Attempt < 4 { // immediate retries, then a delayed one
						return errors.New("not yet")
					}
					late.Add(1)
					return nil
				}),
				sqlq.Handle(func(context.Context, *sqlq.Delivery[pooledEvent]) error { events.Add(1); return nil }),
			}, Retry: sqlq.RetryPolicy{Immediate: 2, Delays: []time.Duration{10 * time.Millisecond}}}
			stop := run(t, c, endpoint)
			eventuallyCount(t, past, 1, `SELECT count(*) FROM sqlq.instance WHERE NOT session_lock`)

			const many = sqlq.CopyFrom + 1
			ctx := t.Context()
			numbered := func(i int) sqlq.SendOption { return sqlq.WithHeader("n", fmt.Sprint(i)) }
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			var some, all []sqlq.Message
			for i := range many {
				if i < 20 {
					some = append(some, pooledTx{i})
				}
				all = append(all, pooledTx{i})
			}
			must(c.Send(ctx, pooledPlain{1}, numbered(1)))
			must(c.SendMany(ctx, some))
			must(c.SendMany(ctx, all)) // COPY
			must(c.Send(ctx, pooledPlain{2}, numbered(2), sqlq.ExpiresIn(time.Hour)))
			must(c.SendMany(ctx, []sqlq.Message{pooledPlain{3}, pooledPlain{3}}, numbered(3), sqlq.ExpiresIn(time.Hour)))
			must(pgx.BeginFunc(ctx, through, func(tx pgx.Tx) error { return c.SendTx(ctx, tx, pooledPlain{4}, numbered(4)) }))
			must(pgx.BeginFunc(ctx, through, func(tx pgx.Tx) error { return c.PublishTx(ctx, tx, pooledEvent{1}) }))
			must(c.Publish(ctx, pooledEvent{2}))
			must(c.Send(ctx, pooledLate{1}, sqlq.Delay(50*time.Millisecond)))
			must(c.SendMany(ctx, []sqlq.Message{pooledLate{2}, pooledLate{-3}}))

			eventually(t, "one is leased at the hold limit", func() (bool, string) {
				return count(t, past, `SELECT count(*) FROM sqlq.leased WHERE type = 'pooled.Late'`) > 0, "none is" + log.all()
			})
			close(leased)
			eventuallyCount(t, past, 20+many, `SELECT count(*) FROM effect`)
			eventually(t, "all are handled", func() (bool, string) {
				got := fmt.Sprint(plain.Load(), " ", events.Load(), " ", late.Load())
				return got == "5 2 3", got + " of 5 plain, 2 events, 3 late" + log.all()
			})
			noSessionLocks(t, past)
			stop()
			eventuallyCount(t, past, 0, `SELECT count(*) FROM sqlq.q_pooled`)
			for _, table := range []string{"delayed", "leased", "error"} {
				eventuallyCount(t, past, 0, `SELECT count(*) FROM sqlq.`+table)
			}
			noSessionLocks(t, past)
			sessionsAreClean(t, through)
			if text := log.all(); !strings.Contains(text, "polling") || !strings.Contains(text, "transaction pooler") || !strings.Contains(text, "ListenURL") {
				t.Errorf("the log does not say that it polls, and why:\n%s", text)
			}
			if n := count(t, past, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL`); n != 1 {
				t.Errorf("%d instances ended in order, want 1", n)
			}
		})
	}
}

// noSessionLocks sees that no session of the database holds an advisory lock for longer than a transaction takes.
func noSessionLocks(t *testing.T, past *pgxpool.Pool) {
	t.Helper()
	// Nobody holds one in idle: a probe's is gone with its statement.
	eventuallyCount(t, past, 0, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE l.locktype = 'advisory' AND a.datname = current_database() AND a.state = 'idle'`)
}

// sessionsAreClean sees that no server connection of the pooler was left with settings or a subscription of the library's.
func sessionsAreClean(t *testing.T, through *pgxpool.Pool) {
	t.Helper()
	var held []*pgxpool.Conn
	seen := map[int]bool{}
	for range 4 { // each holds a server connection of its own
		c, err := through.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
		results, err := c.Conn().PgConn().Exec(t.Context(), `BEGIN; SELECT pg_backend_pid(), current_setting('enable_seqscan') || ' ' || current_setting('enable_sort') || ' '
			|| current_setting('idle_in_transaction_session_timeout') || ' ' || current_setting('plan_cache_mode') || ' '
			|| (SELECT count(*) FROM pg_listening_channels())`).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		row := results[1].Rows[0]
		var pid int
		fmt.Sscan(string(row[0]), &pid)
		seen[pid] = true
		if got := string(row[1]); got != "on on 0 auto 0" {
			t.Errorf("a server connection of the pooler has %q", got)
		}
	}
	if len(seen) != len(held) {
		t.Errorf("looked at %d server connections, want %d", len(seen), len(held))
	}
	for _, c := range held {
		_, _ = c.Conn().PgConn().Exec(context.Background(), `ROLLBACK`).ReadAll()
		c.Release()
	}
}

// With Config.ListenURL senders wake the endpoints although everything else goes through the pooler.
func TestListenURLPastBouncer(t *testing.T) {
	t.Parallel()
	through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode=exec")
	handled := make(chan time.Time, 1)
	config := sqlq.Config{ListenURL: past.Config().ConnString(), PollInterval: time.Hour, Routes: map[string]string{"pooled.Plain": "pooled"}}
	c := open(t, through, config)
	run(t, c, sqlq.Endpoint{Name: "pooled", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[pooledPlain]) error { handled <- time.Now(); return nil }),
	}})
	sender := open(t, through, sqlq.Config{Routes: map[string]string{"pooled.Plain": "pooled"}})
	for i := range 3 {
		eventually(t, "it sleeps", func() (bool, string) {
			s := c.Stats()
			return len(s.Endpoints) == 1 && s.Endpoints[0].Waits == sqlq.Notified, fmt.Sprint(s)
		})
		sent := time.Now()
		if err := sender.Send(t.Context(), pooledPlain{i}); err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-handled:
			t.Logf("handled %v after it was sent", at.Sub(sent))
		case <-time.After(wakeWithin):
			t.Fatal("nobody woke the endpoint")
		}
	}
	if n := count(t, past, `SELECT count(*) FROM sqlq.instance WHERE session_lock AND drained_at IS NULL`); n != 1 {
		t.Errorf("%d instances with a session lock, want 1", n)
	}
	if n := count(t, past, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory'
		AND a.datname = current_database() AND a.application_name NOT IN ('sqlq listen', 'sqlq keep')`); n != 0 {
		t.Errorf("%d session locks on connections of the pooler", n)
	}
}

// A session pooler gives each client a session of its own, and LISTEN works.
func TestBouncerInSessionModeIsNoObstacle(t *testing.T) {
	t.Parallel()
	through, past := behindBouncer(t, bouncer.Options{Mode: "session"})
	c := open(t, through, sqlq.Config{})
	run(t, c, sqlq.Endpoint{Name: "pooled", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[pooledPlain]) error { return nil }),
	}})
	eventually(t, "it listens", func() (bool, string) { return c.Stats().Listening, fmt.Sprint(c.Stats()) })
	eventuallyCount(t, past, 1, `SELECT count(*) FROM sqlq.instance WHERE session_lock`)
}

// A transaction pooler is recognised whichever end it takes its connections from, and however few it has.
func TestBouncerIsRecognised(t *testing.T) {
	t.Parallel()
	bouncer.Need(t)
	for _, o := range []bouncer.Options{
		{}, {PoolSize: 1}, {PoolSize: 2},
		{Settings: []string{"server_round_robin = 1"}},
		{PoolSize: 2, Settings: []string{"server_round_robin = 1", "min_pool_size = 2"}},
		{PoolSize: 3, Settings: []string{"server_round_robin = 1", "min_pool_size = 3"}},
	} {
		t.Run(fmt.Sprint(o), func(t *testing.T) {
			t.Parallel()
			through, past := behindBouncer(t, o, "default_query_exec_mode=exec")
			for range 5 {
				if !sqlq.Pooled(t, through) {
					t.Error("taken for a direct connection")
				}
			}
			if sqlq.Pooled(t, past) {
				t.Error("a direct connection is taken for a pooler's")
			}
		})
	}
}

// When a process behind a pooler dies, its heartbeat alone tells, and another takes over: its messages, and the lead.
func TestDeathBehindBouncer(t *testing.T) {
	t.Parallel()
	through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode=cache_describe")
	var first int32
	execSQL(t, past, `SELECT sqlq.create_queue('pooled')`)
	err := past.QueryRow(t.Context(), `INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, session_lock, lease_time)
		VALUES ('pooled', 'elsewhere', 1, '', 1, false, '2 s') RETURNING id`).Scan(&first)
	if err != nil {
		t.Fatal(err)
	}
	execSQL(t, past, `INSERT INTO sqlq.leased (instance, queue, seq, id, sent_at, attempt, type, body)
		VALUES ($1, 'pooled', 1, gen_random_uuid(), now(), 0, 'pooled.Plain', '{}')`, first)
	handled := make(chan struct{}, 10)
	c := open(t, through, sqlq.Config{LeaseTime: time.Second, Routes: map[string]string{"pooled.Plain": "pooled"}})
	run(t, c, sqlq.Endpoint{Name: "pooled", Handlers: []sqlq.Handler{
		sqlq.Handle(func(context.Context, *sqlq.Delivery[pooledPlain]) error { handled <- struct{}{}; return nil }),
	}})
	wait := func(what string) {
		t.Helper()
		select {
		case <-handled:
		case <-time.After(patience):
			t.Fatalf("%s was never handled", what)
		}
	}
	wait("the dead process's message")
	if err := c.Send(t.Context(), pooledPlain{}, sqlq.Delay(10*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	wait("a delayed message")
	eventuallyCount(t, past, 1, `SELECT count(*) FROM sqlq.instance WHERE crashed_at IS NOT NULL`)
}

// What a HandleTx handler holds that ignores that its context has ended is free when Run returns, although nobody knows
// which server connection the pooler gave it.
func TestAbandonedHandlerBehindBouncer(t *testing.T) {
	t.Parallel()
	through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode=exec")
	begun, never := make(chan struct{}, 1), make(chan struct{})
	t.Cleanup(func() { close(never) })
	c := open(t, through, sqlq.Config{DrainTimeout: time.Millisecond, Routes: map[string]string{"pooled.Tx": "pooled"}})
	endpoint := sqlq.Endpoint{Name: "pooled", Handlers: []sqlq.Handler{
		sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[pooledTx]) error {
			begun <- struct{}{}
			<-never
			return nil
		}),
	}}
	if err := c.Prepare(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
	stop := run(t, c, endpoint)
	if err := c.Send(t.Context(), pooledTx{}); err != nil {
		t.Fatal(err)
	}
	<-begun
	if n := count(t, past, `SELECT count(*) FROM (SELECT FROM sqlq.q_pooled FOR UPDATE SKIP LOCKED) free`); n != 0 {
		t.Errorf("%d messages are free while one is handled", n)
	}
	stop()
	eventuallyCount(t, past, 1, `SELECT count(*) FROM (SELECT FROM sqlq.q_pooled FOR UPDATE SKIP LOCKED) free`)
	noSessionLocks(t, past)
}

// In describe_exec a pooler may give a statement another client's parameters.
func TestDescribeExecIsRefusedBehindBouncer(t *testing.T) {
	t.Parallel()
	through, past := behindBouncer(t, bouncer.Options{}, "default_query_exec_mode=describe_exec")
	if _, err := sqlq.Open(t.Context(), through, sqlq.Config{}); !errors.Is(err, sqlq.ErrUnsafeExecMode) || !strings.HasPrefix(err.Error(), "open: ") || !strings.HasSuffix(err.Error(), "use exec, cache_describe or simple_protocol") {
		t.Errorf("through the pooler: %v, want ErrUnsafeExecMode and what to do", err)
	}
	if _, err := sqlq.Open(t.Context(), poolOn(t, past.Config().ConnString()+"&default_query_exec_mode=describe_exec"), sqlq.Config{}); err != nil {
		t.Errorf("past it: %v", err)
	}
}

// In pgx's default mode an older PgBouncer mixes prepared statements up. The error says what to do.
func TestBouncerWithoutPreparedStatements(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	b := bouncer.Start(t, url, bouncer.Options{PoolSize: 1})
	database := poolOn(t, url).Config().ConnConfig.Database
	open(t, poolOn(t, b.URL(database)), sqlq.Config{})
	_, err := sqlq.Open(t.Context(), poolOn(t, b.URL(database)), sqlq.Config{})
	switch {
	case b.Prepares() && err != nil:
		t.Error(err)
	case !b.Prepares() && (err == nil || !strings.Contains(err.Error(), "default_query_exec_mode=exec")):
		t.Errorf("the second process behind it: %v", err)
	}
}
