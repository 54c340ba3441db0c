package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

// asRole makes a role of the server that may use all that is in the schema and make nothing, and a pool of its own for it.
// The role is gone when the test ends.
func asRole(t *testing.T, url, options string) *pgxpool.Pool {
	t.Helper()
	admin := poolOn(t, url)
	role := fmt.Sprintf("role_%x", sqlq.NewID())
	execSQL(t, admin, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' %s`, role, options))
	t.Cleanup(func() {
		execSQL(t, admin, `DROP OWNED BY `+role)
		execSQL(t, admin, `DROP ROLE `+role)
	})
	for _, sql := range []string{
		`GRANT USAGE ON SCHEMA sqlq TO %s`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sqlq TO %s`,
		`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sqlq TO %s`,
		`GRANT SELECT ON ALL SEQUENCES IN SCHEMA sqlq TO %s`,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA sqlq GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %s`,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA sqlq GRANT SELECT ON SEQUENCES TO %s`,
	} {
		execSQL(t, admin, fmt.Sprintf(sql, role))
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.User, config.ConnConfig.Password = role, "secret"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close) // before the role goes
	return pool
}

func receiveLetters(name string) sqlq.Endpoint {
	return sqlq.Endpoint{Name: name, Handlers: []sqlq.Handler{sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return nil })}}
}

// Too few connections are noticed before anything begins, and the error says which limit, how many, and what helps.
func TestTooFewConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	one, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	one.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := sqlq.Open(t.Context(), pool, sqlq.Config{}); !errors.Is(err, sqlq.ErrTooFewConnections) || !strings.Contains(err.Error(), "MaxConns 1") || !strings.Contains(err.Error(), "at least 2") {
		t.Errorf("Open with a pool of one: %v, want ErrTooFewConnections", err)
	}

	limited := asRole(t, url, `CONNECTION LIMIT 3`)
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue('post')`)
	c := open(t, limited, sqlq.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Run(ctx, receiveLetters("post")); !errors.Is(err, sqlq.ErrTooFewConnections) || !strings.Contains(err.Error(), "the role's CONNECTION LIMIT allows 3") ||
		!strings.Contains(err.Error(), "Config.ReceiveConnections (now 4)") {
		t.Errorf("Run as a role with 3 connections: %v, want ErrTooFewConnections", err)
	}
	if n := count(t, admin, `SELECT count(*) FROM sqlq.instance`); n != 0 {
		t.Errorf("%d instances registered all the same", n)
	}

	execSQL(t, admin, fmt.Sprintf(`ALTER DATABASE %s CONNECTION LIMIT 5`, pgx.Identifier{one.ConnConfig.Database}.Sanitize()))
	c = open(t, asRole(t, url, ``), sqlq.Config{})
	if err := c.Run(ctx, receiveLetters("post")); !errors.Is(err, sqlq.ErrTooFewConnections) || !strings.Contains(err.Error(), "the database's CONNECTION LIMIT allows 5") {
		t.Errorf("Run in a database with 5 connections: %v, want ErrTooFewConnections", err)
	}
	c = open(t, admin, sqlq.Config{ReceiveConnections: 10_000}) // a superuser has no limit but the server's own
	if err := c.Run(ctx, receiveLetters("post")); !errors.Is(err, sqlq.ErrTooFewConnections) || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("Run on a server with too few connections: %v, want ErrTooFewConnections", err)
	}
}

// What Run says is enough is enough: a role that has just as many connections works, the pool's included.
func TestJustEnoughConnections(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	execSQL(t, admin, `SELECT sqlq.create_queue('post')`)
	for limit := 3; ; limit++ {
		if limit > 10 {
			t.Fatal("10 connections are too few")
		}
		pool := asRole(t, url, fmt.Sprintf(`CONNECTION LIMIT %d`, limit))
		pool.Reset()
		config := pool.Config()
		config.MaxConns = 2
		small, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		pool.Close()
		t.Cleanup(small.Close)
		var complaints logged
		c := open(t, small, sqlq.Config{ReceiveConnections: 2, Logger: complaints.logger()})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx, receiveLetters("post")) }()
		var refused error
		eventually(t, "Run runs, or refuses to", func() (bool, string) {
			select {
			case refused = <-ended:
				return true, ""
			default:
			}
			return count(t, admin, `SELECT count(*) FROM sqlq.instance`) == 1, "neither"
		})
		if refused != nil {
			if !errors.Is(refused, sqlq.ErrTooFewConnections) {
				t.Fatalf("with %d connections: %v", limit, refused)
			}
			continue
		}
		t.Logf("%d connections are enough", limit)
		for range 200 {
			execSQL(t, admin, `SELECT sqlq.send('post', 'post.Letter', '{}') FROM generate_series(1, 20)`)
		}
		for range 5 {
			if err := c.Send(t.Context(), letter{}, sqlq.To("post")); err != nil {
				t.Error(err)
			}
		}
		eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_post`)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if said := complaints.all(); said != "" {
			t.Errorf("with %d connections:\n%s", limit, said)
		}
		return
	}
}

// A role that may not make queues gets told which command to ask for; once that has been run it needs no more.
func TestRoleThatMayNotMakeQueues(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	admin := poolOn(t, url)
	limited := asRole(t, url, ``)
	role := limited.Config().ConnConfig.User
	execSQL(t, admin, fmt.Sprintf(`REVOKE EXECUTE ON FUNCTION sqlq.create_queue FROM %s`, role))
	c := open(t, limited, sqlq.Config{})
	for _, f := range []struct {
		what string
		call func() error
	}{
		{"Run", func() error { return c.Run(t.Context(), receiveLetters("post")) }},
		{"Prepare", func() error { return c.Prepare(t.Context(), receiveLetters("post")) }},
	} {
		if err := f.call(); err == nil || !strings.Contains(err.Error(), "sqlq queue create post --schema sqlq") || pgError(err).Code != "42501" {
			t.Errorf("%s: %v, want the command that makes the queue", f.what, err)
		}
	}

	execSQL(t, admin, `SELECT sqlq.create_queue('post')`)
	run(t, c, receiveLetters("post"))
	if err := c.Send(t.Context(), letter{}, sqlq.To("post")); err != nil {
		t.Fatal(err)
	}
	eventuallyCount(t, admin, 1, `SELECT count(*) FROM sqlq.instance`)
	eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_post`)

	// Without the right to read a queue's sequence it goes on too, says so once, and is only slower at times.
	execSQL(t, admin, `SELECT sqlq.create_queue('slow')`)
	execSQL(t, admin, fmt.Sprintf(`REVOKE ALL ON ALL SEQUENCES IN SCHEMA sqlq FROM %s`, role))
	var complaints logged
	slow := open(t, limited, sqlq.Config{Logger: complaints.logger()})
	run(t, slow, receiveLetters("slow"))
	eventually(t, "it says that it may not read a sequence", func() (bool, string) {
		if err := slow.Send(t.Context(), letter{}, sqlq.To("slow")); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(complaints.all(), "42501"), complaints.all()
	})
	for range 3 {
		if err := slow.Send(t.Context(), letter{}, sqlq.To("slow")); err != nil {
			t.Fatal(err)
		}
		eventuallyCount(t, admin, 0, `SELECT count(*) FROM sqlq.q_slow`)
	}
	if said := complaints.all(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "grant SELECT on the sequences") {
		t.Errorf("it says\n%s", said)
	}

	// Who may not write to a queue is told so, and that it is there.
	execSQL(t, admin, `SELECT sqlq.create_queue('theirs')`)
	execSQL(t, admin, fmt.Sprintf(`REVOKE ALL ON sqlq.q_theirs FROM %s`, role))
	if err := c.Send(t.Context(), letter{}, sqlq.To("theirs")); err == nil || errors.Is(err, sqlq.ErrNoQueue) || pgError(err).Code != "42501" || !errors.Is(err, sqlq.ErrPermissionDenied) {
		t.Errorf("Send: %v, want ErrPermissionDenied", err)
	}
}

// A handler's context does not send past the delivery, unless it is told to.
func TestSendingInHandlers(t *testing.T) {
	t.Parallel()
	type key struct{}
	for _, viaTx := range []bool{false, true} {
		t.Run(fmt.Sprint("in a transaction ", viaTx), func(t *testing.T) {
			t.Parallel()
			pool := newPool(t)
			c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Hop": "after"}})
			execSQL(t, pool, `SELECT sqlq.create_queue('after')`)
			execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('post.Posted', 'after')`)
			late := make(chan func() error, 1)
			handle := func(ctx context.Context, d *sqlq.Incoming) error {
				derived, cancel := context.WithCancel(context.WithValue(ctx, key{}, 1))
				defer cancel()
				for what, err := range map[string]error{
					"Send":            c.Send(ctx, hop{}),
					"Send, derived":   c.Send(derived, hop{}),
					"SendMany":        c.SendMany(ctx, []sqlq.Message{hop{}}),
					"Publish":         c.Publish(ctx, posted{}),
					"Send to a queue": c.Send(ctx, hop{}, sqlq.To("after")),
				} {
					if !errors.Is(err, sqlq.ErrInHandler) || !strings.Contains(err.Error(), "Immediately()") {
						t.Errorf("%s: %v, want ErrInHandler", what, err)
					}
				}
				// The handler fails: this is sent all the same, what goes by the delivery is not.
				err := errors.Join(
					c.Send(ctx, hop{}, sqlq.Immediately()),
					c.SendMany(ctx, []sqlq.Message{hop{}, hop{}}, sqlq.Immediately()),
					c.Publish(ctx, posted{}, sqlq.Immediately()),
					inTx(t, pool, func(tx pgx.Tx) error { return c.SendTx(ctx, tx, hop{}) }), // a transaction of its own
					d.Send(hop{}), d.Publish(posted{}))
				if err != nil {
					t.Error(err)
				}
				// Bad input is known at once, and the handler may go on.
				for what, err := range map[error]error{
					sqlq.ErrNoRoute:     d.Send(titled{Type: "post.Stray"}),
					sqlq.ErrIsEvent:     d.Send(posted{}),
					sqlq.ErrNotEvent:    d.Publish(hop{}),
					sqlq.ErrInvalidName: d.Send(hop{}, sqlq.To("no queue")),
					sqlq.ErrInvalidTime: d.Send(hop{}, sqlq.Delay(-1)),
					sqlq.ErrEncode:      d.Send(mute{make(chan int)}, sqlq.To("after")),
				} {
					if !errors.Is(err, what) {
						t.Errorf("%v, want %v", err, what)
					}
				}
				late <- func() error { return d.Send(hop{}) }
				return errors.New("never")
			}
			e := sqlq.Endpoint{Name: "post", Retry: noRetry}
			if viaTx {
				e.Handlers = []sqlq.Handler{sqlq.HandleTx(func(ctx context.Context, _ pgx.Tx, d *sqlq.Delivery[letter]) error { return handle(ctx, d.Incoming) })}
			} else {
				e.Handlers = []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error { return handle(ctx, d.Incoming) })}
			}
			if err := c.Prepare(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			run(t, c, e)
			execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}')`)
			eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.error`)
			if n := count(t, pool, `SELECT count(*) FROM sqlq.q_after`); n != 5 {
				t.Errorf("%d messages sent, want the 5 that did not go by the delivery", n)
			}
			if err := (<-late)(); err == nil || !strings.Contains(err.Error(), "returned") {
				t.Errorf("sending by a delivery whose handler has returned: %v", err)
			}
		})
	}
}

// Endpoints that cannot work are refused before anything begins, by what is wrong with them.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{Routes: map[string]string{"post.Letter": "post", "post.Posted": "post"}})
	letters := sqlq.Handle(func(context.Context, *sqlq.Delivery[letter]) error { return nil })
	lettersTx := sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[letter]) error { return nil })
	hops := sqlq.Handle(func(context.Context, *sqlq.Delivery[hop]) error { return nil })
	events := sqlq.Handle(func(context.Context, *sqlq.Delivery[posted]) error { return nil })
	of := func(hs ...sqlq.Handler) []sqlq.Handler { return hs }
	cases := []struct {
		name      string
		endpoints []sqlq.Endpoint
		says      string
	}{
		{"none", nil, "none"},
		{"no name", []sqlq.Endpoint{{Handlers: of(hops)}}, `queue ""`},
		{"bad name", []sqlq.Endpoint{{Name: "no queue", Handlers: of(hops)}}, "letters"},
		{"no handler", []sqlq.Endpoint{{Name: "post"}}, "no handler"},
		{"empty handler", []sqlq.Endpoint{{Name: "post", Handlers: []sqlq.Handler{{}}}}, "Handle or HandleTx"},
		{"two handlers for a type", []sqlq.Endpoint{{Name: "post", Handlers: of(letters, hops, letters)}}, `two handlers for message type "post.Letter"`},
		{"two kinds of handlers for a type", []sqlq.Endpoint{{Name: "post", Handlers: of(letters, lettersTx)}}, `two handlers for message type "post.Letter"`},
		{"the same endpoint twice", []sqlq.Endpoint{{Name: "a", Handlers: of(hops)}, {Name: "a", Handlers: of(hops)}}, "twice"},
		{"a command in two endpoints", []sqlq.Endpoint{{Name: "a", Handlers: of(hops)}, {Name: "b", Handlers: of(hops)}}, "one receiver"},
		{"a command that is routed elsewhere", []sqlq.Endpoint{{Name: "other", Handlers: of(letters)}}, `routed to queue "post"`},
		{"an event that is routed", []sqlq.Endpoint{{Name: "post", Handlers: of(events)}}, "subscribers"},
		{"a negative concurrency", []sqlq.Endpoint{{Name: "a", Handlers: of(hops), Concurrency: -1}}, "Concurrency"},
		{"a concurrency beyond reason", []sqlq.Endpoint{{Name: "a", Handlers: of(hops), Concurrency: 10_001}}, "Concurrency"},
		{"a negative delay", []sqlq.Endpoint{{Name: "a", Handlers: of(hops), Retry: sqlq.RetryPolicy{Delays: []time.Duration{-1}}}}, "delay"},
		{"too much jitter", []sqlq.Endpoint{{Name: "a", Handlers: of(hops), Retry: sqlq.RetryPolicy{Jitter: 1.1}}}, "Jitter"},
		{"jitter that is no number", []sqlq.Endpoint{{Name: "a", Handlers: of(hops), Retry: sqlq.RetryPolicy{Jitter: math.NaN()}}}, "Jitter"},
		{"attempts without end", []sqlq.Endpoint{{Name: "a", Handlers: of(hops), Retry: sqlq.RetryPolicy{Immediate: math.MaxInt16}}}, "attempts"},
	}
	for _, tc := range cases {
		for what, call := range map[string]func(context.Context, ...sqlq.Endpoint) error{"Run": c.Run, "Prepare": c.Prepare} {
			err := call(t.Context(), tc.endpoints...)
			if !errors.Is(err, sqlq.ErrInvalidEndpoint) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s of %s: %v, want ErrInvalidEndpoint that says %q", what, tc.name, err, tc.says)
			}
		}
	}
	if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.queue) + (SELECT count(*) FROM sqlq.instance) + (SELECT count(*) FROM sqlq.subscription)`); n != 0 {
		t.Errorf("%d queues, instances and subscriptions were made", n)
	}
	// An event in two endpoints is what events are for.
	c = open(t, pool, sqlq.Config{})
	if err := c.Prepare(t.Context(), sqlq.Endpoint{Name: "a", Handlers: of(events)}, sqlq.Endpoint{Name: "b", Handlers: of(events)}); err != nil {
		t.Error(err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.subscription WHERE type = 'post.Posted' AND queue IN ('a', 'b')`); n != 2 {
		t.Errorf("%d subscriptions, want 2", n)
	}
}

// A Config that cannot work is refused by Open.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	for says, config := range map[string]sqlq.Config{
		"LeaseTime":               {LeaseTime: time.Millisecond},
		"HoldLimit":               {HoldLimit: time.Minute},
		"HoldLimit is -1ns":       {HoldLimit: -1},
		"DrainTimeout":            {DrainTimeout: -1},
		"PollInterval":            {PollInterval: -1},
		"MaxBody":                 {MaxBody: -1},
		"1 GiB":                   {MaxBody: 1 << 30},
		"ReceiveConnections":      {ReceiveConnections: -1},
		"entry 0 of Codecs needs": {Codecs: []sqlq.Codec{{ContentType: "text/plain"}}},
		"no subtype":              {Codecs: []sqlq.Codec{codecOf("json")}},
		"Codecs[1]":               {Codecs: []sqlq.Codec{codecOf("text/x"), codecOf("TEXT/X; charset=utf-8")}},
		"invalid media":           {Codecs: []sqlq.Codec{codecOf("text/x; charset")}},
		"no queue":                {Routes: map[string]string{"post.Letter": "no queue"}},
		"no type":                 {Routes: map[string]string{"no type": "post"}},
	} {
		if c, err := sqlq.Open(t.Context(), pool, config); err == nil || c != nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Open: %v, want an error that says %q", err, says)
		}
	}
}
