package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/vgarvardt/gue/v5"
	"github.com/vgarvardt/gue/v5/adapter/pgxv5"
	gueslog "github.com/vgarvardt/gue/v5/adapter/slog"

	"github.com/sqlq/sqlq/internal/lab"
)

func gueSubjects() []subject {
	version := moduleVersion("github.com/vgarvardt/gue/v5")
	contract := "At least once; exactly once in the database for a handler that uses the job's transaction. A transaction and " +
		"a connection for each job in hand, for as long as its handler runs. No LISTEN: it polls. The row is deleted."
	return []subject{{
		key:     "gue",
		title:   "gue, tuned",
		version: version,
		rows:    allRows,
		make:    func() system { return &gueSystem{workers: 16, poll: 20 * time.Millisecond} },
		tuned: "16 workers, each with a connection, that poll every 20 ms, as River tuned does; RunAtPollStrategy, since the " +
			"default one sorts the whole backlog for every job.",
		contract: contract,
		poll:     20 * time.Millisecond,
	}, {
		key:      "gue_defaults",
		title:    "gue, defaults",
		version:  version,
		rows:     []row{rowP50, rowP99},
		make:     func() system { return &gueSystem{workers: 16} },
		tuned:    "Defaults: every worker polls every 5 s, PriorityPollStrategy; 16 workers, a number that gue does not preset.",
		contract: contract,
		poll:     5 * time.Second,
	}}
}

const gueQueue, gueType = "orders", "place_order"

// gueTable creates the table that gue's documentation asks for (migrations/schema.sql of its module).
const gueTable = `
	CREATE TABLE gue_jobs (
		job_id text PRIMARY KEY,
		priority smallint NOT NULL,
		run_at timestamptz NOT NULL,
		job_type text NOT NULL,
		args bytea NOT NULL,
		error_count integer NOT NULL DEFAULT 0,
		last_error text,
		queue text NOT NULL,
		created_at timestamptz NOT NULL,
		updated_at timestamptz NOT NULL
	);
	CREATE INDEX idx_gue_jobs_selector ON gue_jobs (queue, run_at, priority)`

type gueSystem struct {
	workers int
	poll    time.Duration // 0: gue's defaults

	at     place
	pool   *pgxpool.Pool
	sender *gue.Client
}

func (g *gueSystem) open(ctx context.Context, at place) (err error) {
	g.at = at
	if g.pool, err = lab.NewPool(ctx, at.url, sendConns, nil); err != nil {
		return err
	}
	if _, err := g.pool.Exec(ctx, gueTable); err != nil {
		return err
	}
	g.sender, err = gue.NewClient(pgxv5.NewConnPool(g.pool))
	return err
}

func gueJob(o Order) *gue.Job { return &gue.Job{Queue: gueQueue, Type: gueType, Args: encode(o)} }

func (g *gueSystem) send(ctx context.Context, o Order) error {
	return g.sender.Enqueue(ctx, gueJob(o))
}

func (g *gueSystem) sendMany(ctx context.Context, os []Order) error {
	jobs := make([]*gue.Job, len(os))
	for i, o := range os {
		jobs[i] = gueJob(o)
	}
	return g.sender.EnqueueBatch(ctx, jobs)
}

func (g *gueSystem) receive(ctx context.Context, in *inbox) (func(context.Context) error, error) {
	pool, err := lab.NewPool(ctx, g.at.url, g.workers, nil)
	if err != nil {
		return nil, err
	}
	client, err := gue.NewClient(pgxv5.NewConnPool(pool))
	if err != nil {
		pool.Close()
		return nil, err
	}
	work := gue.WorkMap{gueType: func(_ context.Context, j *gue.Job) error {
		var o Order
		if err := json.Unmarshal(j.Args, &o); err != nil {
			return err
		}
		in.handled(o.ID, time.Now())
		return nil
	}}
	options := []gue.WorkerPoolOption{
		gue.WithPoolQueue(gueQueue),
		gue.WithPoolLogger(gueslog.New(g.at.rig.log)),
		gue.WithPoolGracefulShutdown(nil), // otherwise the end of the context rolls back what is in hand
	}
	if g.poll > 0 {
		options = append(options, gue.WithPoolPollInterval(g.poll), gue.WithPoolPollStrategy(gue.RunAtPollStrategy))
	}
	workers, err := gue.NewWorkerPool(client, work, g.workers, options...)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return background(ctx, in, pool.Close, workers.Run), nil
}

func (g *gueSystem) left(ctx context.Context) (int, error) {
	return count(ctx, g.pool, `SELECT count(*) FROM gue_jobs`)
}

func (g *gueSystem) close() {
	if g.pool != nil {
		g.pool.Close()
	}
}
