package pgtest

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq"
)

type left struct{}

func (left) MessageType() string { return "test.Left" }

// A running Client's goroutines and sessions are found; once it has ended, nothing is.
func TestLeftBehind(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c, err := sqlq.Open(t.Context(), pool, sqlq.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := make(chan struct{}, 1)
	go func() {
		ended <- c.Run(ctx, sqlq.Endpoint{Name: "left", Handlers: []sqlq.Handler{
			sqlq.HandleTx(func(context.Context, pgx.Tx, *sqlq.Delivery[left]) error { began <- struct{}{}; return nil }),
		}})
	}()
	if _, err := pool.Exec(t.Context(), `SELECT sqlq.create_queue('left')`); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), left{}, sqlq.To("left")); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := goroutines(); err == nil || !strings.Contains(err.Error(), ").receive(") {
		t.Errorf("the goroutines of a Client that runs: %v", err)
	}
	if err := sessions(t.Context()); err == nil || !strings.Contains(err.Error(), "sqlq receive (") {
		t.Errorf("the sessions of a Client that runs: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := leftBehind(); err != nil {
		t.Errorf("after its end: %v", err)
	}
}
