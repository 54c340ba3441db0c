// Package service is what the shop's programs have in common: connect, run until Ctrl-C or SIGTERM, shut down cleanly.
package service

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/examples/orders/contracts"
	"github.com/sqlq/sqlq/sqlq"
)

// Main connects to the database in DATABASE_URL, creates the tables and calls run, whose context ends at a signal.
func Main(tables string, run func(ctx context.Context, pool *pgxpool.Pool, client *sqlq.Client) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program immediately, but see Handle
	if err := connect(ctx, tables, run); err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}

func connect(ctx context.Context, tables string, run func(context.Context, *pgxpool.Pool, *sqlq.Client) error) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, tables); err != nil {
		return fmt.Errorf("create the tables: %w", err)
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{Routes: contracts.Routes()})
	if err != nil {
		return err
	}
	return run(ctx, pool, client)
}

// Handle returns a run function for Main that handles an endpoint's messages. It ends when those in hand are finished, for
// which Config.DrainTimeout allows half a minute; a second signal cuts that short.
func Handle(endpoint sqlq.Endpoint) func(context.Context, *pgxpool.Pool, *sqlq.Client) error {
	return func(ctx context.Context, _ *pgxpool.Pool, client *sqlq.Client) error {
		if err := client.Prepare(ctx, endpoint); err != nil {
			return err
		}
		slog.Info("ready", "endpoint", endpoint.Name)
		context.AfterFunc(ctx, func() {
			again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			_ = client.Close(again) // then Run returns
		})
		return client.Run(ctx, endpoint)
	}
}
