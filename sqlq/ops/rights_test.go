package ops_test

import (
	"fmt"
	"testing"
)

// Rights say what the role may do, of which queues.
func TestRights(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   string
		queues []string
		want   string
	}{
		{"viewer", nil, "true false false false [billing sales] []"},
		{"viewer", []string{"sales"}, "true false false false [sales] []"},
		{"operator", nil, "true true true true [billing sales] [billing sales]"},
		{"operator", []string{"sales"}, "true true true true [sales] [sales]"},
	} {
		t.Run(fmt.Sprint(c.kind, len(c.queues)), func(t *testing.T) {
			t.Parallel()
			d := open(t)
			d.create("sales", "billing")
			r, err := d.as(c.kind, c.queues...).Roles.Rights(t.Context())
			if got := fmt.Sprint(r.Look, r.Bodies, r.Change, r.Send, r.Queues, r.Changes); err != nil || got != c.want || r.Role == "" {
				t.Errorf("%s, %v, want %s", got, err, c.want)
			}
		})
	}
	d := open(t)
	d.create("sales", "billing")
	if r, err := d.Roles.Rights(t.Context()); err != nil || !r.Look || !r.Bodies || !r.Change || len(r.Changes) != 2 {
		t.Errorf("the owner: %+v, %v", r, err)
	}
}
