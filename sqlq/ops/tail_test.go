package ops_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// Tail shows what arrives, also what is committed after later messages were seen, and what does not fit is left out.
func TestTail(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	send := `INSERT INTO sqlq.q_sales (id, type, body) VALUES (gen_random_uuid(), $1, '{}')`
	d.exec(send, "T.Old")
	slow, err := d.pool.Begin(t.Context()) // has its number before tail begins
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Rollback(t.Context())
	if _, err := slow.Exec(t.Context(), send, "T.Slow"); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- d.Ready.Tail(ctx, "sales", ops.Filter{Body: "!exists($.skip)"}, func(m ops.Message) error {
			seen <- m.Type
			return nil
		})
	}()
	want := func(message string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != message {
				t.Errorf("saw %s, want %s", got, message)
			}
		case err := <-ended:
			t.Fatalf("ended while waiting for %s: %v", message, err)
		case <-time.After(30 * time.Second):
			t.Fatalf("%s is not seen", message)
		}
	}
	for d.number(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%AS fits%' AND pid <> pg_backend_pid()`) == 0 {
	}
	d.exec(`INSERT INTO sqlq.q_sales (id, type, body) VALUES (gen_random_uuid(), 'T.Skipped', '{"skip":true}')`)
	d.exec(send, "T.New")
	want("T.New")
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("T.Slow")
	d.exec(send, "T.Last")
	want("T.Last")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.q_sales`); n != 5 {
		t.Errorf("%d messages are left", n)
	}
}
