//go:build unix

package sqlq_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/sqlq"
)

const pullingVariable = "SQLQ_TEST_PULLING"

// A process that was told so by its parent, the test below, receives five messages and keeps them.
func init() {
	url := os.Getenv(pullingVariable)
	if url == "" {
		return
	}
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, url)
	if err == nil {
		var client *sqlq.Client
		if client, err = sqlq.Open(ctx, pool, sqlq.Config{LeaseTime: crashLease, Logger: quietLog}); err == nil {
			n := 0
			for n < 5 && err == nil {
				var got []*sqlq.Received
				got, err = client.Receive(ctx, "post", 5-n)
				n += len(got)
			}
		}
	}
	fmt.Println("received", err)
	select {} // until it is killed
}

// Two processes share a queue. What one has outstanding the other does not get, however long that takes; when it dies the other gets it,
// and nothing is lost or received twice.
func TestReceiveAfterACrash(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pool := poolOn(t, url)
	execSQL(t, pool, `SELECT sqlq.create_queue('post')`)
	c := pullClient(t, pool, sqlq.Config{LeaseTime: crashLease, Routes: map[string]string{"post.Letter": "post"}})
	sendLetters(t, c, 8)
	other := exec.Command(os.Args[0])
	other.Env, other.Stderr = append(os.Environ(), pullingVariable+"="+url), os.Stderr
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	if said := bufio.NewScanner(out); !said.Scan() || said.Text() != "received <nil>" {
		t.Fatalf("the other process says %q", said.Text())
	}
	eventuallyCount(t, pool, 5, `SELECT count(*) FROM sqlq.leased`)
	seen := map[int]bool{}
	take := func(r *sqlq.Received) {
		t.Helper()
		var m letter
		if err := r.Decode(&m); err != nil || seen[m.N] {
			t.Errorf("message %d, again %v: %v", m.N, seen[m.N], err)
		}
		seen[m.N] = true
		if err := r.Done(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, r := range pullAll(t, c, 3) {
		take(r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), crashLease+time.Second)
	defer cancel()
	if got, err := c.Receive(ctx, "post", 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%d messages that another process has, %v", len(got), err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for len(seen) < 8 {
		for _, r := range pull(t, c, 5) {
			take(r)
		}
	}
	if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased) + (SELECT count(*) FROM sqlq.delayed) + (SELECT count(*) FROM sqlq.error)`); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

// A client whose connections are all lost keeps what it has outstanding, by its leases, and ends it on new ones. A second client of the queue
// gets none of it.
func TestReceiveSurvivesLostConnections(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	second := pullClient(t, pool, sqlq.Config{})
	sendLetters(t, c, 6)
	first, others := pullAll(t, c, 3), pullAll(t, second, 3)
	eventuallyCount(t, pool, 6, `SELECT count(*) FROM sqlq.leased`)
	execSQL(t, pool, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'sqlq %'`)
	ids := map[sqlq.ID]bool{}
	for _, r := range append(first, others...) {
		ids[r.ID] = true
		if err := r.Done(t.Context()); err != nil {
			t.Errorf("Done after the connections were lost: %v", err)
		}
	}
	if n := count(t, pool, `SELECT (SELECT count(*) FROM sqlq.q_post) + (SELECT count(*) FROM sqlq.leased)`); n != 0 || len(ids) != 6 {
		t.Errorf("%d messages are left, %d were received", n, len(ids))
	}
}

// A lease that an operator has released, or another process taken, is not the receiver's any more: its Done says so and removes nothing.
func TestDoneWithoutTheLease(t *testing.T) {
	t.Parallel()
	c, pool := pullSite(t, sqlq.Config{})
	sendLetters(t, c, 1)
	r := pull(t, c, 1)[0]
	eventuallyCount(t, pool, 1, `SELECT count(*) FROM sqlq.leased`)
	execSQL(t, pool, `WITH gone AS (DELETE FROM sqlq.leased RETURNING *)
		INSERT INTO sqlq.q_post (id, sent_at, attempt, type, headers, body) SELECT id, sent_at, attempt, type, headers, body FROM gone`)
	if err := r.Done(t.Context()); !errors.Is(err, sqlq.ErrLeaseLost) {
		t.Errorf("Done: %v, want ErrLeaseLost", err)
	}
	if n := count(t, pool, `SELECT count(*) FROM sqlq.q_post`); n != 1 {
		t.Errorf("%d messages in the queue, want 1", n)
	}
}
