package sqlq_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// spoiler terminates backends until the senders have ended.
func (w *world) spoiler(until chan struct{}, actor uint64) {
	rng := w.rng(actor)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-until:
			cancel()
		case <-ctx.Done():
		}
	}()
	for pause(ctx, rng, 150*time.Millisecond) {
		targets := [][]string{
			{"sqlq receive"}, {"sqlq receive"}, {"sqlq receive"}, {"sqlq keep"}, {"sqlq listen"}, {"model sender"}, {"model receiver"},
			{"sqlq keep", "sqlq listen"}, // without both of them a process looks dead
		}
		target := targets[rng.IntN(len(targets))]
		n := 1 + rng.IntN(2)
		var killed int
		w.note(time.Now())
		err := w.db.QueryRow(ctx, `
			SELECT count(CASE WHEN pg_terminate_backend(pid) THEN 1 END) FROM (
				SELECT pid FROM (
					SELECT pid, row_number() OVER (PARTITION BY application_name ORDER BY md5(pid::text || $3)) AS n FROM pg_stat_activity
					WHERE datname = current_database() AND application_name = ANY ($1)
				) a WHERE n <= $2
			) b`, target, n, fmt.Sprint(rng.Uint64())).Scan(&killed)
		if err != nil && ctx.Err() == nil {
			w.t.Errorf("terminate backends: %v", err)
		}
	}
}

// frayedConn is a connection that breaks now and then, mostly after a request has reached the server and before its
// answer comes.
type frayedConn struct {
	net.Conn
	*world
}

func (c *frayedConn) Read(b []byte) (int, error) {
	if err := c.breaks(300); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *frayedConn) Write(b []byte) (int, error) {
	if err := c.breaks(3000); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// breaks breaks the connection once in n calls, until the senders have ended.
func (c *frayedConn) breaks(n int) error {
	select {
	case <-c.sent:
		return nil
	default:
	}
	if rand.IntN(n) > 0 {
		return nil
	}
	c.note(time.Now())
	c.Conn.Close()
	return &net.OpError{Op: "break", Net: "test", Err: io.ErrUnexpectedEOF}
}

// mayFail says whether an error is one that a fault explains.
func (w *world) mayFail(err error) bool {
	var pg *pgconn.PgError
	var network net.Error
	switch {
	case !w.faults:
		return false
	case errors.As(err, &pg):
		return pg.Code == "57P01" // admin_shutdown
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), pgconn.SafeToRetry(err):
		return true
	}
	return strings.Contains(err.Error(), "conn closed")
}
