package ops_test

import (
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// What is done to a message stays in its history, with how it had failed.
func TestHistory(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 3)
	d.exec(`CREATE TABLE before AS SELECT * FROM sqlq.error`)
	by := d.By(ops.Actor{OSUser: "ann", Host: "h7", Reason: "the card service is back"})
	one := ops.Filter{Names: []string{"1"}}
	for _, change := range []func() (int64, error){
		func() (int64, error) { return by.Failed.Archive(t.Context(), one, ops.ChangeOptions{}) },
		func() (int64, error) { return by.Failed.Unarchive(t.Context(), one, ops.ChangeOptions{}) },
		func() (int64, error) { return by.Failed.Replay(t.Context(), one, ops.ReplayOptions{}) },
		func() (int64, error) {
			return by.Failed.Delete(t.Context(), ops.Filter{Names: []string{"2"}}, ops.ChangeOptions{})
		},
	} {
		if n, err := change(); n != 1 || err != nil {
			t.Fatalf("changed %d, err %v", n, err)
		}
	}
	got := d.text(`SELECT string_agg(concat_ws(' ', b.seq, h.what, h.operation), ', ' ORDER BY h.seq) FROM sqlq.history h JOIN before b
		ON b.id = h.message AND b.queue = h.queue AND b.attempts = h.attempts AND b.failed_at = h.failed_at AND b.host = h.host AND b.message = h.error`)
	if want := "1 archive 1, 1 unarchive 2, 1 replay 3, 2 delete 4"; got != want {
		t.Errorf("history %q, want %q", got, want)
	}
	operations, err := d.Operations.List(t.Context(), ops.OperationFilter{})
	if err != nil || len(operations) != 4 {
		t.Fatalf("operations %+v, err %v", operations, err)
	}
	for _, op := range operations {
		if op.Status != ops.OperationDone || op.Done != 1 || *op.Wanted != 1 || op.OSUser != "ann" || op.Host != "h7" || op.Reason != "the card service is back" || op.Role == "" {
			t.Errorf("operation %+v", op)
		}
	}
}
