// Http is a web front that answers immediately: POST /orders stores the order, sends the command that places it and answers 202
// Accepted; a handler does the slow work, and GET /orders/{id} shows how far it is.
//
// In two terminals:
//
//	1$ go run ./cmd/sqlq dev -- go run ./examples/http
//	2$ curl -i -d '{"item": "teapot"}' localhost:8080/orders
//	2$ curl localhost:8080/orders/1
//	1$ ^C
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("shop ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, tables); err != nil {
		return fmt.Errorf("create the tables: %w", err)
	}
	client, err := sqlq.Open(ctx, pool, sqlq.Config{})
	if err != nil {
		return err
	}
	orders := sqlq.Endpoint{Name: "orders", Handlers: []sqlq.Handler{sqlq.HandleTx(placeOrder)}}
	if err := client.Prepare(ctx, orders); err != nil { // its queue exists before the first request
		return err
	}

	// Run drains at the first signal; the second one cancels what is still being handled. Until then the front may send.
	context.AfterFunc(ctx, func() {
		again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		<-again.Done()
		_ = client.Close(again)
	})

	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("ADDR"), "localhost:8080"))
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	server := &http.Server{Handler: front{pool, client}.routes(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	ctx, stop := context.WithCancel(ctx)
	go func() {
		defer stop() // if it cannot serve, Run need not go on
		served <- server.Serve(listener)
	}()

	// Here or in another process: the front and the handler meet only in the database.
	err = client.Run(ctx, orders)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = errors.Join(err, server.Shutdown(ending))
	if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	return err
}
