// Package endpoints has many endpoints of one process come and go at random while messages are sent to them, and accounts for every
// message, every connection and every goroutine.
package endpoints

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

// Options say what to do. Zero fields have defaults.
type Options struct {
	URL       string        // of a migrated database, which nobody else uses
	Duration  time.Duration // how long endpoints come and go; draining comes on top. Default: 1 min
	Endpoints int           // default: 200
	Rate      int           // messages a second. Default: 1000
	Seed      uint64        // decides on what happens
	Log       io.Writer     // gets what the library complains of, and what is wrong
}

// Result is what has happened.
type Result struct {
	Seconds        float64 `json:"seconds"`
	Started        int     `json:"started"`
	Stopped        int     `json:"stopped"`
	CutShort       int     `json:"cut_short"` // of those that were stopped: without waiting for their handlers
	Sent           int     `json:"sent"`
	Handled        int     `json:"handled"`
	Lost           int     `json:"lost"`
	Repeated       int     `json:"repeated"` // by Handle handlers, which may be when their drain is cut short
	DoubleEffects  int     `json:"double_effects"`
	Failed         int     `json:"failed"`
	ConnectionsMax int     `json:"connections_max"` // of the process, its pool included
	Listeners      int     `json:"listeners"`       // connections that have listened, one after the other
	GoroutinesLeft int     `json:"goroutines_left"`
}

// MaxConnections is what the process may have: two that receive and a spare one, one that listens, one that keeps house, and a pool of
// three.
const MaxConnections = receiveConnections + 3 + poolConnections

const receiveConnections, poolConnections = 2, 3

// Err says what is wrong; nil: nothing is.
func (r *Result) Err() error {
	var errs []error
	for what, n := range map[string]int{"lost": r.Lost, "double effects": r.DoubleEffects, "failed": r.Failed, "goroutines left": r.GoroutinesLeft,
		"connections too many": r.ConnectionsMax - MaxConnections, "listening connections too many": r.Listeners - 1} {
		if n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d", what, n))
		}
	}
	return errors.Join(errs...)
}

// churn is one such time.
type churn struct {
	Options
	client *sqlq.Client
	pool   *pgxpool.Pool
	ledger ledger

	mu     sync.Mutex
	result Result
}

// Run lets endpoints come and go.
func Run(ctx context.Context, o Options) (r *Result, err error) {
	if o.Duration == 0 {
		o.Duration = time.Minute
	}
	if o.Endpoints == 0 {
		o.Endpoints = 200
	}
	if o.Rate == 0 {
		o.Rate = 1000
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	before := runtime.NumGoroutine()
	c := &churn{Options: o, ledger: newLedger()}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	c.result.GoroutinesLeft = left(before, o.Log)
	return &c.result, nil
}

func (c *churn) run(ctx context.Context) (err error) {
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return err
	}
	config.MaxConns = poolConnections
	if c.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return err
	}
	defer c.pool.Close()
	if _, err := c.pool.Exec(ctx, `CREATE TABLE public.effect (number bigint)`); err != nil {
		return err
	}
	c.client, err = sqlq.Open(ctx, c.pool, sqlq.Config{ReceiveConnections: receiveConnections, DrainTimeout: 10 * time.Second,
		Logger: slog.New(slog.NewTextHandler(c.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.client.Close(ctx)) }()
	all := make([]sqlq.Endpoint, c.Endpoints)
	for n := range all {
		all[n] = c.endpoint(n)
	}
	if err := c.client.Prepare(ctx, all...); err != nil {
		return err
	}
	steady := c.endpoint(c.Endpoints) // so that there is always one
	if _, err := c.client.Start(ctx, steady); err != nil {
		return err
	}
	watch, err := watchConnections(ctx, c.URL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.end()) }()
	if err := c.comeAndGo(ctx, all); err != nil {
		return err
	}
	if err := c.client.Close(ctx); err != nil {
		return err
	}
	if err := c.account(ctx); err != nil {
		return err
	}
	c.result.ConnectionsMax, c.result.Listeners = watch.seen()
	return nil
}

// comeAndGo starts and stops endpoints at random while messages are sent; in the end all run, until every message has been handled.
func (c *churn) comeAndGo(ctx context.Context, all []sqlq.Endpoint) error {
	began := time.Now()
	during, cancel := context.WithTimeout(ctx, c.Duration)
	defer cancel()
	const movers = 8
	errs := make(chan error, movers+1)
	running := make([][]*sqlq.Running, movers)
	var sender, others sync.WaitGroup
	sender.Go(func() { errs <- c.send(ctx, during) })
	for m := range movers {
		others.Go(func() {
			var own []sqlq.Endpoint
			for n := m; n < len(all); n += movers {
				own = append(own, all[n])
			}
			var err error
			running[m], err = c.move(ctx, during, own, rand.New(rand.NewPCG(c.Seed, uint64(m))))
			errs <- err
		})
	}
	sender.Wait()
	others.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	c.result.Seconds = time.Since(began).Seconds()
	if err := c.await(ctx); err != nil {
		return err
	}
	for _, own := range running {
		for _, r := range own {
			others.Go(func() { _ = r.Stop(ctx) })
		}
	}
	others.Wait()
	return ctx.Err()
}

// move starts and stops some of the endpoints, and returns them all running.
func (c *churn) move(ctx, during context.Context, own []sqlq.Endpoint, random *rand.Rand) ([]*sqlq.Running, error) {
	running := make([]*sqlq.Running, len(own))
	start := func(n int) (err error) {
		if running[n], err = c.client.Start(ctx, own[n]); err == nil {
			c.count(func(r *Result) { r.Started++ })
		}
		return err
	}
	for during.Err() == nil {
		n := random.IntN(len(own))
		if r := running[n]; r == nil {
			if err := start(n); err != nil {
				return nil, err
			}
		} else if err := c.stop(ctx, r, random.IntN(4) == 0); err != nil {
			return nil, err
		} else {
			running[n] = nil
		}
		select {
		case <-time.After(time.Duration(random.IntN(20)) * time.Millisecond):
		case <-during.Done():
		}
	}
	for n := range own {
		if running[n] == nil {
			if err := start(n); err != nil {
				return nil, err
			}
		}
	}
	return running, nil
}

// stop stops an endpoint; hasty: without waiting for its handlers.
func (c *churn) stop(ctx context.Context, r *sqlq.Running, hasty bool) error {
	if hasty {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := r.Stop(ended); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		c.count(func(r *Result) { r.Stopped++; r.CutShort++ })
		return ctx.Err()
	}
	c.count(func(r *Result) { r.Stopped++ })
	return r.Stop(ctx)
}

func (c *churn) count(change func(r *Result)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.result)
}

// left returns how many goroutines are left that were not there before, and names them.
func left(before int, log io.Writer) (n int) {
	for range 500 {
		if n = runtime.NumGoroutine() - before; n <= 0 {
			return 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Fprintf(log, "%d goroutines are left:\n", n)
	_ = pprof.Lookup("goroutine").WriteTo(log, 1)
	return n
}
