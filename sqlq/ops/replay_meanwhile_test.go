package ops_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// Two that run at once share the messages: each is replayed once, and none is lost.
func TestReplayTwoAtOnce(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	const total = 20_000
	d.fail("sales", "g1", total)
	type outcome struct {
		n   int64
		err error
	}
	outcomes := make(chan outcome)
	for range 2 {
		go func() {
			n, err := d.Failed.Replay(context.WithoutCancel(t.Context()), ops.Filter{Queue: "sales"}, ops.ReplayOptions{})
			outcomes <- outcome{n, err}
		}()
	}
	a, b := <-outcomes, <-outcomes
	if a.err != nil || b.err != nil || a.n+b.n != total {
		t.Errorf("replayed %d and %d, err %v, %v; want %d together", a.n, b.n, a.err, b.err, total)
	}
	if n := d.number(`SELECT count(DISTINCT id) FROM sqlq.q_sales`); n != total || d.number(`SELECT count(*) FROM sqlq.q_sales`) != total {
		t.Errorf("%d different messages are in the queue, want %d", n, total)
	}
}

// A replay that is interrupted has replayed whole batches, says how many, and is resumed; what fails meanwhile is left alone.
func TestReplayInterruptedAndLaterArrivals(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 12_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, err := d.Failed.Replay(ctx, ops.Filter{Queue: "sales"}, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Progress: func(ops.Progress) { cancel() }}})
	var stopped *ops.InterruptedError
	if n != 5000 || !errors.Is(err, context.Canceled) || !errors.As(err, &stopped) || stopped.Done != 5000 || *stopped.Wanted != 12_000 {
		t.Fatalf("interrupted: replayed %d, err %v", n, err)
	}
	if want := "replay stopped after 5000 of 12000 messages\nGo on with: sqlq operation resume 1"; err.Error() != want {
		t.Errorf("interrupted: err %q, want %q", err, want)
	}
	d.whole("sales", 12_000, 5000)
	op, err := d.Operations.Show(t.Context(), stopped.Operation)
	if err != nil || op.Status != ops.OperationInterrupted || op.Done != 5000 || op.EndedAt == nil || !op.Resumable() {
		t.Errorf("interrupted: operation %+v, err %v", op, err)
	}
	var told []int64
	op, err = d.Operations.Resume(t.Context(), stopped.Operation, func(p ops.Progress) {
		told = append(told, p.Done)
		d.fail("sales", "g1", 1)
	})
	if err != nil || op.Status != ops.OperationDone || op.Done != 12_000 || fmt.Sprint(told) != "[10000 12000]" {
		t.Errorf("resumed: %+v, err %v, progress %v", op, err, told)
	}
	d.whole("sales", 12_002, 12_000)
	if _, err := d.Operations.Resume(t.Context(), op.ID, nil); err == nil || !strings.Contains(err.Error(), "is done: there is nothing to resume") {
		t.Errorf("resumed again: err %v", err)
	}
}

// Messages that somebody else works on are passed over, not waited for.
func TestReplayPassesOverLocked(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 5)
	tx, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `UPDATE sqlq.error SET status = 'archived' WHERE seq = 3`); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); n != 4 || err != nil {
		t.Errorf("replayed %d, err %v", n, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{}); n != 0 || err != nil {
		t.Errorf("archived meanwhile: replayed %d, err %v", n, err)
	}
}

// A server process that dies in the middle of a batch leaves nothing half done, and the operation is resumed.
func TestReplayKilledMidBatch(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 12_000)
	// The second batch stops in front of its last message until the test lets go of a lock.
	d.exec(`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(17); RETURN NEW; END'`)
	d.exec(`CREATE TRIGGER hold BEFORE INSERT ON sqlq.q_sales FOR EACH ROW WHEN (NEW.seq = 10000) EXECUTE FUNCTION hold()`)
	holder, err := d.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Rollback(context.WithoutCancel(t.Context()))
	if _, err := holder.Exec(t.Context(), `SELECT pg_advisory_xact_lock(17)`); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	go func() {
		_, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{})
		outcome <- err
	}()
	d.eventually(`SELECT count(*) = 1 FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory') k`)
	var stopped *ops.InterruptedError
	if err := <-outcome; !errors.As(err, &stopped) || stopped.Done != 5000 {
		t.Fatalf("killed: err %v", err)
	}
	d.whole("sales", 12_000, 5000)
	d.exec(`DROP TRIGGER hold ON sqlq.q_sales`)
	op, err := d.Operations.Resume(t.Context(), stopped.Operation, nil)
	if err != nil || op.Done != 12_000 || op.Status != ops.OperationDone {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	d.whole("sales", 12_000, 12_000)
}

// A queue that is dropped in the middle of a replay keeps its failed messages, and does not hold up the others.
func TestReplayQueueDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("billing", "sales")
	d.fail("sales", "g1", 6000)
	d.fail("billing", "g1", 10)
	d.fail("sales", "g1", 10)
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Progress: func(p ops.Progress) {
		if p.Done == 5000 {
			if _, err := d.Queues.Drop(t.Context(), "billing", true); err != nil {
				t.Error(err)
			}
		}
	}}})
	var gone *ops.QueueGoneError
	if n != 6010 || !errors.As(err, &gone) || fmt.Sprint(gone.Queues) != "[billing]" {
		t.Errorf("replayed %d, err %v", n, err)
	}
	d.whole("sales", 6020, 6010)
}

// When the queue that all go to is dropped meanwhile the replay stops, and goes on when it is there again.
func TestReplayToQueueDroppedMeanwhile(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("mended")
	d.fail("sales", "g1", 6000)
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{To: "mended", ChangeOptions: ops.ChangeOptions{Progress: func(ops.Progress) {
		if _, err := d.Queues.Drop(t.Context(), "mended", true); err != nil {
			t.Error(err)
		}
	}}})
	var none *ops.NoQueueError
	var stopped *ops.InterruptedError
	if n != 5000 || !errors.As(err, &none) || none.Queue != "mended" || !errors.As(err, &stopped) {
		t.Fatalf("replayed %d, err %v", n, err)
	}
	d.create("mended")
	if op, err := d.Operations.Resume(t.Context(), stopped.Operation, nil); err != nil || op.Done != 6000 {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	d.whole("mended", 1000, 1000)
}
