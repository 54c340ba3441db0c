package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

func sqlqSubjects() []subject {
	return []subject{{
		key:     "sqlq",
		title:   "sqlq",
		version: "this checkout",
		rows:    allRows,
		make:    func() system { return &sqlqSystem{} },
		tuned: "Config and Endpoint as they come: up to 4 receive connections, 4 × GOMAXPROCS handlers at a time. " +
			"Handle, not HandleTx.",
		contract: "At least once with Handle, which is measured here; exactly once in the database with HandleTx. The row " +
			"goes when its handler has returned, and nothing of it is kept.",
	}}
}

// sqlqQueue is the endpoint and its queue.
const sqlqQueue = "orders"

type sqlqSystem struct {
	at     place
	pool   *pgxpool.Pool
	sender *sqlq.Client
}

func (s *sqlqSystem) open(ctx context.Context, at place) (err error) {
	s.at = at
	if err := migrate.Up(ctx, at.url, "sqlq"); err != nil {
		return err
	}
	if s.pool, err = lab.NewPool(ctx, at.url, sendConns, nil); err != nil {
		return err
	}
	if _, err := s.pool.Exec(ctx, `SELECT sqlq.create_queue($1)`, sqlqQueue); err != nil {
		return err
	}
	s.sender, err = s.client(ctx, s.pool)
	return err
}

func (s *sqlqSystem) client(ctx context.Context, pool *pgxpool.Pool) (*sqlq.Client, error) {
	return sqlq.Open(ctx, pool, sqlq.Config{Logger: s.at.rig.log, Routes: map[string]string{Order{}.MessageType(): sqlqQueue}})
}

func (s *sqlqSystem) send(ctx context.Context, o Order) error { return s.sender.Send(ctx, o) }

func (s *sqlqSystem) sendMany(ctx context.Context, os []Order) error {
	ms := make([]sqlq.Message, len(os))
	for i, o := range os {
		ms[i] = o
	}
	return s.sender.SendMany(ctx, ms)
}

func (s *sqlqSystem) receive(ctx context.Context, in *inbox) (func(context.Context) error, error) {
	// A separate client: one that also sends would be woken without the database.
	pool, err := lab.NewPool(ctx, s.at.url, 4, nil)
	if err != nil {
		return nil, err
	}
	client, err := s.client(ctx, pool)
	if err != nil {
		pool.Close()
		return nil, err
	}
	handle := sqlq.Handle(func(_ context.Context, d *sqlq.Delivery[Order]) error {
		in.handled(d.Message.ID, time.Now())
		return nil
	})
	return background(ctx, in, pool.Close, func(ctx context.Context) error {
		return client.Run(ctx, sqlq.Endpoint{Name: sqlqQueue, Handlers: []sqlq.Handler{handle}})
	}), nil
}

func (s *sqlqSystem) left(ctx context.Context) (int, error) {
	return count(ctx, s.pool, `SELECT `+lab.Waiting(sqlqQueue)+` + (SELECT count(*) FROM sqlq.error)`)
}

func (s *sqlqSystem) close() {
	if s.pool != nil {
		s.pool.Close()
	}
}
