package ops_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// batched is what goes by batches beside changes of failed messages: it does it with 3500 messages of queue sales, of which
// 1000 make a batch.
var batched = map[string]func(ctx context.Context, d database, progress func(ops.Progress)) (int64, error){
	"move": func(ctx context.Context, d database, progress func(ops.Progress)) (int64, error) {
		return d.Ready.Move(ctx, "sales", "other", ops.Filter{Until: ops.Ago(0), Limit: 3500}, ops.ChangeOptions{Progress: progress})
	},
	"purge": func(ctx context.Context, d database, progress func(ops.Progress)) (int64, error) {
		purged, err := d.Ready.Purge(ctx, "sales", ops.Filter{Until: ops.Ago(0), Limit: 3500}, ops.PurgeOptions{ChangeOptions: ops.ChangeOptions{Progress: progress}})
		return purged.Ready, err
	},
	"cancel": func(ctx context.Context, d database, progress func(ops.Progress)) (int64, error) {
		return d.Delayed.Cancel(ctx, ops.Filter{Queue: "sales"}, ops.ChangeOptions{Progress: progress})
	},
	"reschedule": func(ctx context.Context, d database, progress func(ops.Progress)) (int64, error) {
		return d.Delayed.Reschedule(ctx, ops.Filter{Queue: "sales"}, ops.Due{By: time.Hour}, ops.ChangeOptions{Progress: progress})
	},
}

// fillBatched makes 3500 ready and 3500 delayed messages of queue sales.
func (d database) fillBatched() {
	d.t.Helper()
	d.create("sales", "other")
	d.fill("sales", 3500)
	d.exec(`UPDATE sqlq.q_sales SET sent_at = now() - interval '1 minute'`)
	d.delay("sales", 3500, later)
}

// What is interrupted between two batches says how far it came and is resumed: it does the rest, and nothing of what came later.
// So is what runs by the record, although its process has died.
func TestResumeBatched(t *testing.T) {
	t.Parallel()
	for kind, run := range batched {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.fillBatched()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n, err := run(ctx, d, func(ops.Progress) { cancel() })
			var stopped *ops.InterruptedError
			if n != 1000 || !errors.As(err, &stopped) || stopped.Done != 1000 || stopped.Kind != kind || !errors.Is(err, context.Canceled) {
				t.Fatalf("interrupted: %d, err %v", n, err)
			}
			d.fill("sales", 10)
			d.exec(`UPDATE sqlq.q_sales SET sent_at = now() - interval '1 minute'`)
			d.delay("sales", 10, later)
			d.exec(`UPDATE sqlq.operation SET status = 'running', ended_at = NULL, updated_at = now() - interval '1 minute'`)
			var progress ops.Progress
			op, err := d.Operations.Resume(t.Context(), stopped.Operation, func(p ops.Progress) { progress = p })
			if err != nil || op.Status != ops.OperationDone || op.Done != 3500 || progress.Done != 3500 || progress.Kind != kind {
				t.Errorf("resumed: %+v, err %v; progress %+v", op, err, progress)
			}
			d.afterBatched(kind)
			if _, err := d.Operations.Resume(t.Context(), stopped.Operation, nil); err == nil {
				t.Error("what is done is resumed")
			}
		})
	}
}

// afterBatched looks whether all that was there in the beginning has been changed once, and the 10 of each that came later
// have not.
func (d database) afterBatched(kind string) {
	d.t.Helper()
	left, want := d.text(`SELECT concat_ws(' ', (SELECT count(*) FROM sqlq.q_sales), (SELECT count(DISTINCT id) FROM sqlq.q_other), (SELECT count(*) FROM sqlq.delayed),
		(SELECT count(*) FROM sqlq.delayed WHERE seq <= 3500 AND due_at = '2100-01-01T01:00:00Z'::timestamptz + (seq - 1) * interval '1 second'))`),
		map[string]string{"move": "10 3500 3510 0", "purge": "10 0 3510 0", "cancel": "3510 0 10 0", "reschedule": "3510 0 3510 3500"}[kind]
	if left != want {
		d.t.Errorf("ready, moved, delayed and shifted: %s, want %s", left, want)
	}
}

// Two that go on with one operation at once share what is left.
func TestResumeBatchedTwoAtOnce(t *testing.T) {
	t.Parallel()
	for kind, run := range batched {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.fillBatched()
			later := func() {
				d.fill("sales", 10)
				d.delay("sales", 10, later)
			}
			n, err := run(t.Context(), d, func(p ops.Progress) {
				changed := p.Done
				if changed != 1000 {
					return
				}
				later()
				d.exec(`UPDATE sqlq.operation SET updated_at = now() - interval '1 minute'`)
				op, err := d.Operations.Resume(t.Context(), 1, nil)
				if err != nil || op.Done != 3500 || op.Status != ops.OperationDone {
					t.Errorf("the second: %+v, err %v", op, err)
				}
			})
			if n != 1000 || err != nil {
				t.Errorf("the first changed %d, err %v", n, err)
			}
			d.afterBatched(kind)
		})
	}
}

// An operation that somebody cancels ends before its next batch.
func TestBatchedIsCancelled(t *testing.T) {
	t.Parallel()
	for kind, run := range batched {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.fillBatched()
			n, err := run(t.Context(), d, func(ops.Progress) {
				if _, err := d.Operations.Cancel(t.Context(), 1); err != nil {
					t.Error(err)
				}
			})
			if n != 1000 || !errors.Is(err, ops.ErrCancelled) {
				t.Errorf("changed %d, err %v", n, err)
			}
			if _, err := d.Operations.Resume(t.Context(), 1, nil); err == nil {
				t.Error("what was cancelled is resumed")
			}
		})
	}
}

// A purge of delayed messages too is told to be run again.
func TestPurgeOfDelayedIsNotResumed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fillBatched()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := d.Ready.Purge(ctx, "sales", ops.Filter{}, ops.PurgeOptions{Delayed: true, ChangeOptions: ops.ChangeOptions{Progress: func(ops.Progress) { cancel() }}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: err %v", err)
	}
	if _, err := d.Operations.Resume(t.Context(), 1, nil); err == nil {
		t.Error("it is resumed")
	}
}
