package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/sqlq/sqlq/internal/lab"
)

func riverSubjects() []subject {
	version := moduleVersion("github.com/riverqueue/river")
	contract := "At least once. A handled job stays as a row in state completed for 24 hours, which its users can look at; " +
		"the cleaner that deletes it then is outside of what is measured. A job of a crashed process is rescued after an " +
		"hour (by default)."
	return []subject{{
		key:     "river",
		title:   "River, tuned",
		version: version,
		rows:    allRows,
		make:    func() system { return &riverSystem{tuned: true, fast: true} },
		tuned: "As River's own `river bench`: FetchCooldown 2 ms, FetchPollInterval 20 ms, 2,000 workers. Many at once with " +
			"InsertManyFast (COPY).",
		contract: contract,
	}, {
		key:      "river_insertmany",
		title:    "River, InsertMany",
		version:  version,
		rows:     []row{rowSendMany},
		make:     func() system { return &riverSystem{tuned: true} },
		tuned:    "As River, tuned, but many at once with InsertMany, as `river bench` does; it returns the jobs with their ids.",
		contract: contract,
	}, {
		key:      "river_defaults",
		title:    "River, defaults",
		version:  version,
		rows:     []row{rowP50, rowP99},
		make:     func() system { return &riverSystem{} },
		tuned:    "Defaults: FetchCooldown 100 ms, FetchPollInterval 1 s; 100 workers, a number that River does not preset.",
		contract: contract,
		poll:     time.Second,
	}}
}

type riverSystem struct {
	tuned, fast bool

	at     place
	pool   *pgxpool.Pool
	sender *river.Client[pgx.Tx]
}

func (r *riverSystem) open(ctx context.Context, at place) (err error) {
	r.at = at
	if r.pool, err = lab.NewPool(ctx, at.url, sendConns, nil); err != nil {
		return err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(r.pool), &rivermigrate.Config{Logger: at.rig.log})
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	config := r.config()
	config.Queues = nil // this client only inserts
	r.sender, err = river.NewClient(riverpgxv5.New(r.pool), config)
	return err
}

func (r *riverSystem) config() *river.Config {
	config := &river.Config{
		Logger: r.at.rig.log,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 100}},
	}
	if r.tuned {
		config.FetchCooldown = 2 * time.Millisecond
		config.FetchPollInterval = 20 * time.Millisecond
		config.Queues[river.QueueDefault] = river.QueueConfig{MaxWorkers: 2_000}
	}
	return config
}

func (r *riverSystem) send(ctx context.Context, o Order) error {
	_, err := r.sender.Insert(ctx, o, nil)
	return err
}

func (r *riverSystem) sendMany(ctx context.Context, os []Order) (err error) {
	params := make([]river.InsertManyParams, len(os))
	for i, o := range os {
		params[i].Args = o
	}
	if r.fast {
		_, err = r.sender.InsertManyFast(ctx, params)
	} else {
		_, err = r.sender.InsertMany(ctx, params)
	}
	return err
}

type riverWorker struct {
	river.WorkerDefaults[Order]
	in *inbox
}

func (w *riverWorker) Work(_ context.Context, job *river.Job[Order]) error {
	w.in.handled(job.Args.ID, time.Now())
	return nil
}

func (r *riverSystem) receive(ctx context.Context, in *inbox) (func(context.Context) error, error) {
	pool, err := lab.NewPool(ctx, r.at.url, 16, nil)
	if err != nil {
		return nil, err
	}
	config := r.config()
	config.Workers = river.NewWorkers()
	river.AddWorker(config.Workers, &riverWorker{in: in})
	client, err := river.NewClient(riverpgxv5.New(pool), config)
	if err == nil {
		err = client.Start(context.WithoutCancel(ctx)) // the end of ctx would cancel the jobs; stop ends it instead
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer pool.Close()
		return client.Stop(ctx)
	}, nil
}

func (r *riverSystem) left(ctx context.Context) (int, error) {
	return count(ctx, r.pool, `SELECT count(*) FROM river_job WHERE state <> 'completed'`)
}

func (r *riverSystem) close() {
	if r.pool != nil {
		r.pool.Close()
	}
}
