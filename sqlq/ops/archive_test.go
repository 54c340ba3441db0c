package ops_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestArchive(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 2500)
	d.fail("billing", "g2", 3)
	if n, err := d.Failed.Archive(t.Context(), ops.Filter{Group: "g1", Limit: 1200}, ops.ChangeOptions{}); n != 1200 || err != nil {
		t.Errorf("limited: archived %d, err %v", n, err)
	}
	if n, err := d.Failed.Archive(t.Context(), ops.Filter{Group: "g1"}, ops.ChangeOptions{}); n != 1300 || err != nil {
		t.Errorf("the rest: archived %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE status = 'archived' AND archived_at IS NOT NULL AND fingerprint = 'g1'`); n != 2500 {
		t.Errorf("%d are archived, want 2500", n)
	}
	n, err := d.Failed.Archive(t.Context(), ops.Filter{Names: []string{"1", "2501", "9999"}}, ops.ChangeOptions{})
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Archived) != "[9999] [1]" {
		t.Errorf("by name: archived %d, err %v", n, err)
	}
	if n, err := d.Failed.Archive(t.Context(), ops.Filter{All: true}, ops.ChangeOptions{}); n != 2 || err != nil {
		t.Errorf("all: archived %d, err %v", n, err)
	}
}

// Archived messages come back, and are deleted only where the filter says so.
func TestUnarchiveAndDelete(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 4)
	if n, err := d.Failed.Archive(t.Context(), ops.Filter{Names: []string{"1", "2", "3"}}, ops.ChangeOptions{}); n != 3 || err != nil {
		t.Fatalf("archived %d, err %v", n, err)
	}
	n, err := d.Failed.Unarchive(t.Context(), ops.Filter{Names: []string{"1", "4", "9"}}, ops.ChangeOptions{})
	var none *ops.NoFailedError
	if n != 1 || !errors.As(err, &none) || fmt.Sprint(none.Missing, none.Failed) != "[9] [4]" {
		t.Errorf("unarchived %d, err %v", n, err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error WHERE seq = 1 AND status = 'failed' AND archived_at IS NULL`); n != 1 {
		t.Error("it is not as it was")
	}
	if n, err := d.Failed.Delete(t.Context(), ops.Filter{Queue: "sales"}, ops.ChangeOptions{}); n != 2 || err != nil {
		t.Errorf("deleted %d, err %v", n, err)
	}
	if n, err := d.Failed.Delete(t.Context(), ops.Filter{Queue: "sales", Status: ops.StatusAny}, ops.ChangeOptions{}); n != 2 || err != nil {
		t.Errorf("deleted %d archived ones, err %v", n, err)
	}
	if _, err := d.Failed.Delete(t.Context(), ops.Filter{}, ops.ChangeOptions{}); !errors.Is(err, ops.ErrFilterEmpty) {
		t.Errorf("everything: err %v", err)
	}
	if n := d.number(`SELECT count(*) FROM sqlq.error`); n != 0 {
		t.Errorf("%d are left", n)
	}
}
