package lab_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/lab"
)

// through opens a session through a proxy of its own.
func through(t *testing.T) (*pgx.Conn, *lab.Proxy) {
	t.Helper()
	server := pgtest.Empty(t)
	p, err := lab.NewProxy(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	url, err := p.URL(server)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.WithoutCancel(t.Context())) })
	if len(p.Links()) != 1 {
		t.Fatalf("%d connections", len(p.Links()))
	}
	return conn, p
}

// answers runs a statement, and returns what tells its outcome.
func answers(t *testing.T, conn *pgx.Conn, within time.Duration) <-chan error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	answered := make(chan error, 1)
	go func() {
		defer cancel()
		_, err := conn.Exec(ctx, `SELECT 1`)
		answered <- err
	}()
	return answered
}

const longEnough = time.Minute

// A request that is withheld arrives when it is let go.
func TestProxyLetsGo(t *testing.T) {
	t.Parallel()
	conn, p := through(t)
	if err := <-answers(t, conn, longEnough); err != nil {
		t.Fatal(err)
	}
	link := p.Links()[0]
	sprung := make(chan struct{})
	link.Set(lab.OnRequest, func() { close(sprung) })
	answer := answers(t, conn, longEnough)
	<-sprung
	select {
	case err := <-answer:
		t.Fatalf("a black hole answered: %v", err)
	default:
	}
	link.LetGo()
	if err := <-answer; err != nil {
		t.Errorf("what was let go did not arrive: %v", err)
	}
}

// The statement that committed is one of those whose answer is withheld.
func TestProxyTrapsACommit(t *testing.T) {
	t.Parallel()
	conn, p := through(t)
	link := p.Links()[0]
	sprung := make(chan struct{})
	link.Set(lab.OnCommit, func() { close(sprung) })
	answer := answers(t, conn, longEnough)
	select {
	case <-sprung:
	case err := <-answer:
		t.Fatalf("it did not hang: %v", err)
	}
	link.Cut()
	<-link.Ended()
	if err := <-answer; err == nil {
		t.Error("a connection that was cut answered")
	}
	if slices.Contains(p.Links(), link) { // the driver may ask the server to cancel, on another
		t.Error("a connection that was cut is one yet")
	}
}

// A delay is added on the way there and on the way back.
func TestProxyIsSlow(t *testing.T) {
	t.Parallel()
	conn, p := through(t)
	const delay = 20 * time.Millisecond
	p.Slow(delay)
	began := time.Now()
	if err := <-answers(t, conn, longEnough); err != nil || time.Since(began) < 2*delay {
		t.Errorf("there and back after %v: %v", time.Since(began), err)
	}
}
