//go:build unix

package sqlq_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

const signalledVariable = "SQLQ_TEST_SIGNALLED"

// A process that was told so by its parent, the test below, is a service as the documentation of Close has it.
func init() {
	if url := os.Getenv(signalledVariable); url != "" {
		if err := signalledService(url); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func signalledService(url string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	client, err := sqlq.Open(ctx, pool, sqlq.Config{DrainTimeout: time.Hour, Logger: quietLog})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		again, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		fmt.Println("draining")
		_ = client.Close(again)
	})
	return client.Run(ctx, sqlq.Endpoint{Name: "post", Handlers: []sqlq.Handler{sqlq.Handle(func(ctx context.Context, d *sqlq.Delivery[letter]) error {
		fmt.Println("handling")
		<-ctx.Done()
		return ctx.Err()
	})}})
}

// A service that calls Close with the context of a second signal drains at the first, for as long as its handlers take, and ends at the
// second.
func TestSecondSignalEndsTheDrain(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	execSQL(t, pool, `SELECT sqlq.send('post', 'post.Letter', '{}')`)
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), signalledVariable+"="+url)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	time.AfterFunc(2*patience, func() { _ = c.Process.Kill() }) // then the lines below are missing
	lines := bufio.NewScanner(out)
	for _, want := range []string{"handling", "draining"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the service says %q, want %q", lines.Text(), want)
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	var rest strings.Builder
	for lines.Scan() {
		rest.WriteString(lines.Text())
	}
	if err := c.Wait(); err != nil || rest.Len() > 0 {
		t.Errorf("the service ends with %v, and says %q", err, rest.String())
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post WHERE attempt = 0`); n != 1 {
		t.Errorf("%d messages went back unspent, want 1", n)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.instance WHERE drained_at IS NOT NULL AND crashed_at IS NULL`); n != 1 {
		t.Errorf("%d instances have ended in order, want 1", n)
	}
}
