package ops_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// eventually waits until a query says true.
func (d database) eventually(sql string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	for {
		var is bool
		if err := d.pool.QueryRow(ctx, sql).Scan(&is); err != nil {
			d.t.Fatalf("%s: %v", sql, err)
		}
		if is {
			return
		}
	}
}

// An operation that is cancelled while it runs stops before its next batch, and is not to be resumed.
func TestCancelOperationThatRuns(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 6000)
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Progress: func(p ops.Progress) {
		op, err := d.By(ops.Actor{OSUser: "bob", Host: "h8", Reason: "100% wrong"}).Operations.Cancel(t.Context(), p.Operation)
		if err != nil || op.Status != ops.OperationCancelled || !strings.HasSuffix(op.Error, " (bob@h8): 100% wrong") {
			t.Errorf("cancel: %+v, err %v", op, err)
		}
	}}})
	var stopped *ops.InterruptedError
	if n != 5000 || !errors.Is(err, ops.ErrCancelled) || !errors.As(err, &stopped) || stopped.Done != 5000 {
		t.Errorf("replayed %d, err %v", n, err)
	}
	d.whole("sales", 6000, 5000)
	if _, err := d.Operations.Resume(t.Context(), 1, nil); err == nil || !strings.Contains(err.Error(), "operation 1 is cancelled") {
		t.Errorf("resume: err %v", err)
	}
	if _, err := d.Operations.Cancel(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "cancelled already") {
		t.Errorf("cancel again: err %v", err)
	}
}

// An operation is resumed that runs by the record but has done nothing for a while; if its process lives after all, the two
// share the messages.
func TestResumeStalledOperation(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 16_000)
	n, err := d.Failed.Replay(t.Context(), ops.Filter{Queue: "sales"}, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Limit: 15_000, Progress: func(p ops.Progress) {
		if p.Done != 5000 {
			return
		}
		if _, err := d.Operations.Resume(t.Context(), p.Operation, nil); err == nil || !strings.Contains(err.Error(), "is running") {
			t.Errorf("resumed while it runs: err %v", err)
		}
		d.exec(`UPDATE sqlq.operation SET updated_at = now() - interval '1 minute'`)
		stalled, err := d.Operations.List(t.Context(), ops.OperationFilter{Status: ops.OperationStalled, Kind: "replay"})
		if err != nil || len(stalled) != 1 || stalled[0].Status != ops.OperationStalled || !stalled[0].Resumable() {
			t.Errorf("stalled: %+v, err %v", stalled, err)
		}
		op, err := d.Operations.Resume(t.Context(), p.Operation, nil)
		if err != nil || op.Done != 15_000 || op.Status != ops.OperationDone {
			t.Errorf("resumed: %+v, err %v", op, err)
		}
	}}})
	if n != 5000 || err != nil {
		t.Errorf("the first replayed %d, err %v", n, err)
	}
	d.whole("sales", 16_000, 15_000)
}

// A change is resumed as it was begun: times that count from now count from its beginning, and what came later is left alone.
func TestResumeKeepsFilter(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "other")
	d.fail("sales", "g1", 6000)
	d.exec(`UPDATE sqlq.error SET failed_at = now() - interval '2 hours' WHERE seq % 6 = 0`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := d.Failed.Replay(ctx, ops.Filter{Queue: "sales", Since: ops.Ago(time.Hour), Error: "card"}, ops.ReplayOptions{To: "other", ChangeOptions: ops.ChangeOptions{Rate: 20_000, Limit: 4990,
		Progress: func(p ops.Progress) { cancel() }}})
	var stopped *ops.InterruptedError
	if !errors.As(err, &stopped) || stopped.Done == 0 || stopped.Done >= 4990 || *stopped.Wanted != 4990 {
		t.Fatalf("interrupted: err %v", err)
	}
	// As if two hours had passed.
	d.exec(`UPDATE sqlq.error SET failed_at = failed_at - interval '2 hours'`)
	d.exec(`UPDATE sqlq.operation SET after_at = after_at - interval '2 hours', filter = jsonb_set(filter::jsonb, '{since}', to_jsonb((filter->>'since')::timestamptz - interval '2 hours'))::json`)
	d.fail("sales", "g1", 10)
	op, err := d.Operations.Resume(t.Context(), stopped.Operation, nil)
	if err != nil || op.Done != 4990 || op.Queue != "other" {
		t.Errorf("resumed: %+v, err %v", op, err)
	}
	d.whole("other", 6010, 4990)
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE seq > 6000 OR seq % 6 = 0`); n != 1010 {
		t.Errorf("%d messages are left of those that had failed before and after, want all 1010", n)
	}
}

func TestOperationsThatCannotBeResumed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.exec(`INSERT INTO sqlq.operation (kind, status, filter) VALUES ('import', 'interrupted', '{}'), ('replay', 'interrupted', '{"colour":"red"}')`)
	if _, err := d.Operations.Resume(t.Context(), 1, nil); err == nil || !strings.Contains(err.Error(), "is of the kind \"import\", which cannot be resumed: run it again") {
		t.Errorf("an import: err %v", err)
	}
	if _, err := d.Operations.Resume(t.Context(), 2, nil); err == nil || !strings.Contains(err.Error(), `"colour"`) {
		t.Errorf("a condition that is not known: err %v", err)
	}
	var none *ops.NoOperationError
	if _, err := d.Operations.Resume(t.Context(), 3, nil); !errors.As(err, &none) {
		t.Errorf("one that is not there: err %v", err)
	}
	if _, err := d.Operations.Cancel(t.Context(), 3); !errors.As(err, &none) {
		t.Errorf("cancel one that is not there: err %v", err)
	}
	if _, err := d.Operations.Show(t.Context(), 3); !errors.As(err, &none) {
		t.Errorf("show one that is not there: err %v", err)
	}
	if _, err := d.Operations.List(t.Context(), ops.OperationFilter{Status: "lost"}); err == nil {
		t.Error("a status that is none is taken")
	}
}
