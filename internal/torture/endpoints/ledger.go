package endpoints

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/sqlq"
)

// ledger is what was sent, and what Handle handlers have had; what HandleTx handlers have had is in the table effect.
type ledger struct {
	mu      sync.Mutex
	sent    int
	plain   int // of those: to Handle handlers
	handled map[int]int
}

func newLedger() ledger { return ledger{handled: map[int]int{}} }

func (l *ledger) handle(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled[number]++
}

// endpoint makes an endpoint with a Handle and a HandleTx handler. A few messages take long, and a few fail at first.
func (c *churn) endpoint(n int) sqlq.Endpoint {
	numberOf := func(d *sqlq.Delivery[sqlq.Raw]) (int, error) { return strconv.Atoi(string(d.Message.Body)) }
	meet := func(ctx context.Context, d *sqlq.Delivery[sqlq.Raw], number int) error {
		switch {
		case number%499 == 0:
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		case number%199 == 0 && d.Attempt == 1:
			return errors.New("not at the first attempt")
		}
		return nil
	}
	name := fmt.Sprintf("e%03d", n)
	return sqlq.Endpoint{Name: name, Concurrency: 4, Retry: sqlq.RetryPolicy{Immediate: 2}, Handlers: []sqlq.Handler{
		sqlq.HandleRaw("plain."+name, func(ctx context.Context, d *sqlq.Delivery[sqlq.Raw]) error {
			number, err := numberOf(d)
			if err == nil {
				err = meet(ctx, d, number)
			}
			if err == nil {
				c.ledger.handle(number)
			}
			return err
		}),
		sqlq.HandleRawTx("tx."+name, func(ctx context.Context, tx pgx.Tx, d *sqlq.Delivery[sqlq.Raw]) error {
			number, err := numberOf(d)
			if err == nil {
				err = meet(ctx, d, number)
			}
			if err == nil {
				_, err = tx.Exec(ctx, `INSERT INTO public.effect VALUES ($1)`, number)
			}
			return err
		}),
	}}
}

// send sends messages to all endpoints at random, running or not.
func (c *churn) send(ctx, during context.Context) error {
	random := rand.New(rand.NewPCG(c.Seed, 1<<32))
	began := time.Now()
	for during.Err() == nil {
		if ahead := time.Duration(c.ledger.sent)*time.Second/time.Duration(c.Rate) - time.Since(began); ahead > 0 {
			select {
			case <-time.After(ahead):
			case <-during.Done():
			}
			continue
		}
		name, kind := fmt.Sprintf("e%03d", random.IntN(c.Endpoints)), []string{"plain.", "tx."}[random.IntN(2)]
		ms := make([]sqlq.Message, 1+random.IntN(20))
		for i := range ms {
			ms[i] = sqlq.Raw{Type: kind + name, Body: []byte(strconv.Itoa(c.ledger.sent + i + 1))}
		}
		if err := c.client.SendMany(ctx, ms); err != nil {
			return fmt.Errorf("send to %s: %w", name, err)
		}
		c.ledger.mu.Lock()
		if c.ledger.sent += len(ms); kind == "plain." {
			c.ledger.plain += len(ms)
		}
		c.ledger.mu.Unlock()
	}
	return nil
}

// await waits until every message has been handled, or none is any more for some time.
func (c *churn) await(ctx context.Context) error {
	const patience = 30 * time.Second
	last, since := -1, time.Now()
	for {
		done, err := c.handled(ctx)
		if err != nil || done == c.ledger.sent {
			return err
		}
		if done != last {
			last, since = done, time.Now()
		}
		if time.Since(since) > patience {
			return nil // they are lost
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handled counts the messages that were handled at least once.
func (c *churn) handled(ctx context.Context) (n int, err error) {
	err = c.pool.QueryRow(ctx, `SELECT count(DISTINCT number) FROM public.effect`).Scan(&n)
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	return n + len(c.ledger.handled), err
}

// account fills in what became of the messages, when nothing runs any more.
func (c *churn) account(ctx context.Context) error {
	r := &c.result
	done, err := c.handled(ctx)
	if err != nil {
		return err
	}
	r.Sent, r.Handled, r.Lost = c.ledger.sent, done, c.ledger.sent-done
	for _, times := range c.ledger.handled {
		r.Repeated += times - 1
	}
	return c.pool.QueryRow(ctx, `
		SELECT (SELECT count(*) - count(DISTINCT number) FROM public.effect),
			(SELECT count(*) FROM sqlq.error)`).Scan(&r.DoubleEffects, &r.Failed)
}

// watch counts connections.
type watch struct {
	conn   *pgx.Conn
	stop   context.CancelFunc
	ended  chan error
	most   int
	listen map[int]bool
}

func watchConnections(ctx context.Context, url string) (*watch, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	w := &watch{conn: conn, stop: stop, ended: make(chan error, 1), listen: map[int]bool{}}
	go func() { w.ended <- w.look(ctx) }()
	return w, nil
}

// look counts the client connections to the database every 20 ms, without its own.
func (w *watch) look(ctx context.Context) error {
	for {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
		var n int
		var listen []int
		err := w.conn.QueryRow(ctx, `
			SELECT count(*), coalesce(array_agg(pid) FILTER (WHERE application_name = 'sqlq listen'), '{}') FROM pg_stat_activity
			WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`).Scan(&n, &listen)
		if err != nil {
			var pg *pgconn.PgError
			if ctx.Err() != nil && !errors.As(err, &pg) {
				return nil
			}
			return err
		}
		w.most = max(w.most, n)
		for _, pid := range listen {
			w.listen[pid] = true
		}
	}
}

// seen stops it, and returns how many there were at most, and how many have listened.
func (w *watch) seen() (most, listeners int) {
	if err := w.end(); err != nil {
		return -1, -1
	}
	return w.most, len(w.listen)
}

func (w *watch) end() error {
	w.stop()
	err, first := <-w.ended
	if !first {
		return nil
	}
	close(w.ended)
	return errors.Join(err, w.conn.Close(context.Background()))
}
