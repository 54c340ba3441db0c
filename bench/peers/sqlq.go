package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
	"github.com/sqlq/sqlq/sqlq/migrate"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func sqlqSubjects() []subject {
	return []subject{{
		key:     "sqlq",
		title:   "sqlq",
		version: "this checkout",
		rows:    []row{rowDrain, rowSend16, rowSendMany, rowWAL, rowP50, rowP99},
		make:    func() system { return &sqlqSystem{} },
		tuned: "Config, Endpoint and pool as they come: 4 receive connections, 4 × GOMAXPROCS handlers at a time. Handle, " +
			"not HandleTx.",
		contract: "A message's row is deleted when its handler has returned: at least once with Handle (measured here), " +
			"exactly once in the database with HandleTx. Nothing of a handled message is kept.",
	}}
}

// sqlqQueue is the endpoint and its queue.
const sqlqQueue = "orders"

type sqlqSystem struct {
	sendPool, receivePool *pgxpool.Pool
	sender                *sqlq.Client
	ops                   *ops.Ops
}

func (s *sqlqSystem) config(at place) sqlq.Config {
	return sqlq.Config{Logger: at.lab.log, Routes: map[string]string{Order{}.MessageType(): sqlqQueue}}
}
