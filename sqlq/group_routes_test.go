package sqlq_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

type cooked struct{}

func (cooked) MessageType() string { return "kitchen.Cooked" }
func (cooked) IsEvent()            {}

type washed struct{}

func (washed) MessageType() string { return "kitchen.Washed" }
func (washed) IsEvent()            {}

// A subscriber whose table is locked holds up the event that it wants, and no other.
func TestStuckSubscriberHoldsUpItsEventOnly(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['stuck', 'free']) q`)
	execSQL(t, pool, `INSERT INTO sqlq.subscription (type, queue) VALUES ('kitchen.Cooked', 'stuck'), ('kitchen.Washed', 'free')`)
	c := open(t, pool, sqlq.Config{})
	lock, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), `LOCK TABLE sqlq.q_stuck IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	var publishers sync.WaitGroup
	for n := range 2 { // as many as fly at a time
		publishers.Go(func() {
			if err := c.Publish(t.Context(), cooked{}); err != nil {
				t.Error(err)
			}
		})
		eventually(t, "publishers that wait for the table", func() (bool, string) {
			waiting := count(t, pool, `SELECT count(*) FROM pg_locks WHERE relation = 'sqlq.q_stuck'::regclass AND NOT granted`)
			return waiting == n+1, fmt.Sprint(waiting)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Publish(ctx, washed{}); err != nil {
		t.Errorf("an event that the locked queue is not subscribed to: %v", err)
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	publishers.Wait()
	if stuck, free := count(t, pool, `SELECT count(*) FROM sqlq.q_stuck`), count(t, pool, `SELECT count(*) FROM sqlq.q_free`); stuck != 2 || free != 1 {
		t.Errorf("%d and %d copies, want 2 and 1", stuck, free)
	}
}

// Queues come and go: what was kept for sends to one is forgotten when nothing is sent to it any more.
func TestGroupsOfIdleRoutesAreForgotten(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	var senders sync.WaitGroup
	const each = 500
	for s := range 6 {
		senders.Go(func() {
			for n := range each {
				if err := c.Send(t.Context(), chore{}, sqlq.To(fmt.Sprintf("reply.%d", s*each+n))); !errors.Is(err, sqlq.ErrNoQueue) {
					t.Errorf("send to a queue that is gone: %v", err)
					return
				}
			}
		})
	}
	senders.Wait()
	if n := c.RoutesKept(); n == 0 || n > 1010 {
		t.Errorf("after sends to %d queues, %d are remembered, want 1,000 and those under way", 6*each, n)
	}
}

// What is no transaction is no outbox: the message would be committed whatever becomes of the caller's rows.
func TestSendTxRefusesWhatIsNoTransaction(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	c := open(t, pool, sqlq.Config{Routes: choreRoute})
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	pooled, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer pooled.Release()
	for name, tx := range map[string]sqlq.DBTX{"a pool": pool, "a connection": pooled.Conn(), "a pool's connection": pooled, "a *sql.DB": sqlq.SQLTx(db), "nil": nil} {
		if err := c.SendTx(t.Context(), tx, chore{}); !errors.Is(err, sqlq.ErrNoTransaction) {
			t.Errorf("SendTx with %s: %v, want ErrNoTransaction", name, err)
		}
		if err := c.PublishTx(t.Context(), tx, cooked{}); !errors.Is(err, sqlq.ErrNoTransaction) {
			t.Errorf("PublishTx with %s: %v, want ErrNoTransaction", name, err)
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); n != 0 {
		t.Errorf("%d messages were sent", n)
	}
	for name, tx := range map[string]sqlq.DBTX{"a connection": pooled.Conn(), "a pool's connection": pooled} {
		for _, statement := range []string{`BEGIN`, `ROLLBACK`} {
			if _, err := pooled.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			if statement == `BEGIN` {
				if err := c.SendTx(t.Context(), tx, chore{}); err != nil {
					t.Errorf("SendTx with %s in a transaction: %v", name, err)
				}
			}
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_house`); n != 0 {
		t.Errorf("%d messages outlived their transaction", n)
	}
}

// What middleware makes of a message's type and queue is checked as what the sender gave.
func TestSendMiddlewareIsChecked(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue(q) FROM unnest(ARRAY['house', 'ledger']) q`)
	var change func(*sqlq.Outgoing)
	c := open(t, pool, sqlq.Config{Routes: choreRoute, SendMiddleware: []func(sqlq.SendFunc) sqlq.SendFunc{
		func(next sqlq.SendFunc) sqlq.SendFunc {
			return func(ctx context.Context, m *sqlq.Outgoing) error { change(m); return next(ctx, m) }
		}}})
	send := func() error { return c.Send(t.Context(), chore{}) }
	publish := func() error { return c.Publish(t.Context(), cooked{}) }
	for _, test := range []struct {
		name   string
		do     func() error
		change func(*sqlq.Outgoing)
		want   error
	}{
		{"a type that is none", send, func(m *sqlq.Outgoing) { m.Type = "a type\x00" }, sqlq.ErrInvalidName},
		{"no type", publish, func(m *sqlq.Outgoing) { m.Type = "" }, sqlq.ErrInvalidName},
		{"a queue that is none", send, func(m *sqlq.Outgoing) { m.Queue = `x"; DROP SCHEMA sqlq CASCADE; --` }, sqlq.ErrInvalidName},
		{"a command without a queue", send, func(m *sqlq.Outgoing) { m.Queue = "" }, sqlq.ErrInvalidName},
		{"an event to a queue", publish, func(m *sqlq.Outgoing) { m.Queue = "house" }, sqlq.ErrIsEvent},
		{"a command to another queue", send, func(m *sqlq.Outgoing) { m.Queue = "ledger" }, nil},
	} {
		change = test.change
		if err := test.do(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		} else if err != nil && !strings.Contains(err.Error(), "middleware") {
			t.Errorf("%s: the error does not say who is to blame: %v", test.name, err)
		}
	}
	if house, ledger := count(t, pool, `SELECT count(*) FROM sqlq.q_house`), count(t, pool, `SELECT count(*) FROM sqlq.q_ledger`); house != 0 || ledger != 1 {
		t.Errorf("%d and %d messages, want 0 and 1", house, ledger)
	}
}

// Whoever goes on changing what was given to Open changes nothing.
func TestConfigIsCopied(t *testing.T) {
	t.Parallel()
	pool := newPool(t)
	execSQL(t, pool, `SELECT sqlq.create_queue('house')`)
	routes := map[string]string{"house.Chore": "house"}
	for typ := range choreRoute {
		routes[typ] = "house"
	}
	middleware := []func(sqlq.SendFunc) sqlq.SendFunc{func(next sqlq.SendFunc) sqlq.SendFunc { return next }}
	c := open(t, pool, sqlq.Config{Routes: routes, SendMiddleware: middleware})
	clear(routes)
	clear(middleware)
	if err := c.Send(t.Context(), chore{}); err != nil {
		t.Error(err)
	}
}
