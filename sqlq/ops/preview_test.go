package ops_test

import (
	"fmt"
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestPreview(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 7)
	d.fail("gone", "g1", 2)
	v, err := d.Failed.PreviewReplay(t.Context(), ops.Filter{Group: "g1"}, ops.ReplayOptions{})
	if err != nil || v.Messages != (ops.Count{N: 7}) || len(v.Sample) != 5 || v.Sample[0].Number != 1 || fmt.Sprint(v.Gone) != "[gone]" {
		t.Errorf("replay: %+v, err %v", v, err)
	}
	v, err = d.Failed.PreviewDelete(t.Context(), ops.Filter{Names: []string{"1", "77"}}, ops.ChangeOptions{})
	if err != nil || v.Messages.N != 1 || len(v.Sample) != 1 || v.Unnamed == nil || fmt.Sprint(v.Unnamed.Missing) != "[77]" {
		t.Errorf("delete: %+v, err %v", v, err)
	}
	if v, err := d.Failed.PreviewArchive(t.Context(), ops.Filter{All: true, Limit: 2}, ops.ChangeOptions{}); err != nil || v.Messages.N != 2 || len(v.Sample) != 2 {
		t.Errorf("archive: %+v, err %v", v, err)
	}
	if v, err := d.Failed.PreviewUnarchive(t.Context(), ops.Filter{All: true}, ops.ChangeOptions{}); err != nil || v.Messages != (ops.Count{}) || v.Sample != nil {
		t.Errorf("unarchive: %+v, err %v", v, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE status = 'failed'`); n != 9 || d.number(`SELECT count(*) FROM sqlq.operation`) != 0 {
		t.Errorf("a preview has changed something: %d are failed", n)
	}
}

// Where counting takes too long the number is an estimate, some messages are shown instead of the first, and a replay does
// not say how many it wants.
func TestPreviewThatTakesLong(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 10)
	d.exec(`CREATE OR REPLACE FUNCTION sqlq.header_value(headers json, name text) RETURNS text LANGUAGE sql VOLATILE
		AS $$ SELECT headers ->> name FROM pg_sleep(0.05) $$`)
	f := ops.Filter{Headers: map[string]string{"tenant": "north"}}
	v, err := d.Failed.PreviewReplay(t.Context(), f, ops.ReplayOptions{})
	if err != nil || v.Messages != (ops.Count{N: 10, Estimated: true}) || len(v.Sample) != 5 {
		t.Errorf("%+v, err %v", v, err)
	}
	n, err := d.Failed.Replay(t.Context(), f, ops.ReplayOptions{ChangeOptions: ops.ChangeOptions{Progress: func(p ops.Progress) {
		if p.Wanted != nil {
			t.Errorf("it wants %d", *p.Wanted)
		}
	}}})
	op, readErr := d.Operations.Show(t.Context(), 1)
	if n != 10 || err != nil || readErr != nil || op.Wanted != nil || op.Done != 10 {
		t.Errorf("replayed %d, err %v; %+v, err %v", n, err, op, readErr)
	}
}
