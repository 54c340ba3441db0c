package ops_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// What a preview saw is what is changed: what came later stays, also where the filter counts from now.
func TestPreviewIsPinned(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "other")
	d.fail("sales", "g1", 5)
	d.fill("sales", 7)
	d.delay("sales", 6, later)
	f := ops.Filter{Queue: "sales", Since: ops.Ago(time.Hour)}
	delayed := ops.Filter{Queue: "sales"}
	replay, err := d.Failed.PreviewReplay(t.Context(), f, ops.ReplayOptions{})
	move, errMove := d.Ready.PreviewMove(t.Context(), "sales", "other", f, ops.ChangeOptions{})
	cancel, errCancel := d.Delayed.PreviewCancel(t.Context(), delayed, ops.ChangeOptions{})
	if err := errors.Join(err, errMove, errCancel); err != nil || replay.Messages.N != 5 || move.Messages.N != 7 || cancel.Messages != 6 {
		t.Fatalf("previews: %+v, %+v, %+v, %v", replay, move, cancel, err)
	}
	d.fail("sales", "g1", 3)
	d.fill("sales", 3)
	d.delay("sales", 3, later)
	opts := func(s ops.Snapshot) ops.ChangeOptions {
		text, err := json.Marshal(s) // as a form carries it
		if err == nil {
			s = ops.Snapshot{}
			err = json.Unmarshal(text, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return ops.ChangeOptions{UpTo: s}
	}
	if n, err := d.Ready.Move(t.Context(), "sales", "other", f, opts(move.UpTo)); n != 7 || err != nil {
		t.Errorf("moved %d, %v", n, err)
	}
	if n, err := d.Failed.Replay(t.Context(), f, ops.ReplayOptions{ChangeOptions: opts(replay.UpTo)}); n != 5 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	if n, err := d.Delayed.Cancel(t.Context(), delayed, opts(cancel.UpTo)); n != 6 || err != nil {
		t.Errorf("cancelled %d, %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error`); n != 3 {
		t.Errorf("%d failed messages are left, want those 3 that failed after the preview", n)
	}
}

// Where more would be changed than the preview saw, nothing is, and no operation is written down.
func TestMoreThanThePreviewSaw(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "other")
	d.fail("sales", "g1", 5)
	d.fill("sales", 5)
	d.delay("sales", 5, later)
	seen := func(s ops.Snapshot) ops.ChangeOptions {
		fewer := *s.Messages - 1 // as if one had been hidden: of a transaction that committed late, or archived
		s.Messages = &fewer
		return ops.ChangeOptions{UpTo: s}
	}
	all := ops.Filter{Queue: "sales"}
	failed, err := d.Failed.PreviewDelete(t.Context(), all, ops.ChangeOptions{})
	ready, errReady := d.Ready.PreviewPurge(t.Context(), "sales", ops.Filter{}, ops.PurgeOptions{})
	delayed, errDelayed := d.Delayed.PreviewReschedule(t.Context(), all, ops.Due{}, ops.ChangeOptions{})
	if err := errors.Join(err, errReady, errDelayed); err != nil {
		t.Fatal(err)
	}
	_, errDelete := d.Failed.Delete(t.Context(), all, seen(failed.UpTo))
	_, errPurge := d.Ready.Purge(t.Context(), "sales", ops.Filter{}, ops.PurgeOptions{ChangeOptions: seen(ready.UpTo)})
	_, errMove := d.Ready.Move(t.Context(), "sales", "other", ops.Filter{}, seen(ready.UpTo))
	_, errReschedule := d.Delayed.Reschedule(t.Context(), all, ops.Due{}, seen(delayed.UpTo))
	for what, err := range map[string]error{"delete": errDelete, "purge": errPurge, "move": errMove, "reschedule": errReschedule} {
		if changed := new(ops.ChangedSincePreviewError); !errors.As(err, &changed) || changed.Previewed != 4 || changed.Now != 5 {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n := d.number(`SELECT count(*) FROM sqlq.operation`); n != 0 {
		t.Errorf("%d operations are written down, want none", n)
	}
	forged := failed.UpTo
	forged.Number, forged.Messages = 1<<62, nil // a form can say what it likes: it names no messages that are not there
	if n, err := d.Failed.Delete(t.Context(), all, ops.ChangeOptions{UpTo: forged}); n != 5 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
}

// The number of an operation is told before it changes anything, so that it can be watched and ended from the first batch on.
func TestBegan(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "other")
	d.fail("sales", "g1", 5)
	d.fill("sales", 5)
	d.delay("sales", 5, later)
	all := ops.Filter{Queue: "sales"}
	began := 0
	opts := ops.ChangeOptions{Began: func(id int64) {
		began++
		op, err := d.Operations.Show(t.Context(), id)
		if err != nil || op.Done != 0 || op.Status != ops.OperationRunning {
			t.Errorf("at its beginning: %+v, %v", op, err)
		}
		if _, err := d.Operations.Cancel(t.Context(), id); err != nil {
			t.Error(err)
		}
	}}
	for what, do := range map[string]func() (int64, error){
		"replay": func() (int64, error) {
			return d.Failed.Replay(t.Context(), all, ops.ReplayOptions{ChangeOptions: opts})
		},
		"archive":    func() (int64, error) { return d.Failed.Archive(t.Context(), all, opts) },
		"delete":     func() (int64, error) { return d.Failed.Delete(t.Context(), all, opts) },
		"cancel":     func() (int64, error) { return d.Delayed.Cancel(t.Context(), all, opts) },
		"reschedule": func() (int64, error) { return d.Delayed.Reschedule(t.Context(), all, ops.Due{By: time.Hour}, opts) },
		"move":       func() (int64, error) { return d.Ready.Move(t.Context(), "sales", "other", ops.Filter{}, opts) },
		"purge": func() (int64, error) {
			purged, err := d.Ready.Purge(t.Context(), "sales", ops.Filter{}, ops.PurgeOptions{ChangeOptions: opts})
			return purged.Ready, err
		},
	} {
		if n, err := do(); n != 0 || !errors.Is(err, ops.ErrCancelled) {
			t.Errorf("%s: changed %d, %v", what, n, err)
		}
	}
	if began != 7 {
		t.Errorf("%d of 7 told their number", began)
	}
}
