package ops_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestGroupFailed(t *testing.T) {
	t.Parallel()
	d := many(t)
	d.exec(`UPDATE sqlq.error SET fingerprint = 'g0' WHERE seq = 9`)
	groups, err := d.GroupFailed(t.Context(), ops.Filter{Status: ops.StatusAny})
	if err != nil || len(groups) != 4 {
		t.Fatalf("%v, err %v", groups, err)
	}
	g := groups[0] // messages 4, 8, 9
	if g.Group != "g0" || g.Count != (ops.Count{N: 3}) || g.Archived != 1 || fmt.Sprint(g.Queues, g.Types) != "[billing sales] [Even Odd]" || g.Number != 9 ||
		g.ErrorType != "e" || g.Error != "it's 100% refused by 10.0.0.9" || g.FirstAt.UTC().Format(time.TimeOnly) != "10:04:00" || g.LastAt.UTC().Format(time.TimeOnly) != "10:09:00" {
		t.Errorf("%+v", g)
	}
	for _, c := range []struct {
		filter ops.Filter
		want   string
	}{
		{ops.Filter{}, "g0 g3 g2 g1"}, // of two each, that first which failed last
		{ops.Filter{Status: ops.StatusAny}, "g0 g3 g2 g1"},
		{ops.Filter{Order: ops.Newest, Queue: "sales"}, "g1 g0 g3 g2"},
		{ops.Filter{Order: ops.Oldest}, "g1 g2 g3 g0"},
		{ops.Filter{Limit: 2}, "g0 g3"},
		{ops.Filter{Queue: "sales"}, "g1 g0 g3 g2"},
		{ops.Filter{Error: "refused"}, "g2 g3"},
	} {
		groups, err := d.GroupFailed(t.Context(), c.filter)
		var got []string
		for _, g := range groups {
			got = append(got, g.Group)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %v, err %v, want %s", c.filter, got, err, c.want)
		}
	}
}

// The estimates are exact where the sample is the whole table, whatever the filter.
func TestGroupsEstimated(t *testing.T) {
	t.Parallel()
	d := many(t)
	s := store.New("sqlq")
	for _, f := range []store.Filter{{}, {Status: "failed"}, {Status: "archived"}, {Status: "failed", Queue: "sales", Error: "Timeout"},
		{Headers: [][2]string{{"tenant", "north"}}, Body: "$.amount"}} {
		exact, err := s.GroupFailed(t.Context(), d.pool, f)
		if err != nil {
			t.Fatal(err)
		}
		estimated, err := s.EstimateGroups(t.Context(), d.pool, f)
		if err != nil {
			t.Fatal(err)
		}
		each := func(groups []store.FailedGroup) map[string]int64 {
			n := map[string]int64{}
			for _, g := range groups {
				n[strings.Join([]string{g.Fingerprint, g.Queue, g.Type, g.Status, g.FirstAt.String(), g.LastAt.String(), fmt.Sprint(g.Seq)}, " ")] += g.N
			}
			return n
		}
		if fmt.Sprint(each(exact)) != fmt.Sprint(each(estimated)) {
			t.Errorf("%+v: estimated %v, want %v", f, each(estimated), each(exact))
		}
		var sum int64
		for _, g := range exact {
			sum += g.N
		}
		if n, err := s.EstimateChosen(t.Context(), d.pool, f); err != nil || n != sum {
			t.Errorf("%+v: estimated %d, err %v, want %d", f, n, err, sum)
		}
	}
}

// Counts are exact up to the limit, and estimated above it.
func TestCountFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", ops.CountLimit)
	d.fail("sales", "g2", 2)
	if c, err := d.CountFailed(t.Context(), ops.Filter{Group: "g2", Limit: 1}); err != nil || c.N != 2 {
		t.Errorf("few: %v, err %v", c, err)
	}
	if c, err := d.CountFailed(t.Context(), ops.Filter{Group: "g1"}); err != nil || c.N < ops.CountLimit || c.Estimated && c.N != ops.CountLimit {
		t.Errorf("the limit: %v, err %v", c, err)
	}
	if c, err := d.CountFailed(t.Context(), ops.Filter{}); err != nil || c.N != ops.CountLimit+2 || !c.Estimated { // the sample is the whole table
		t.Errorf("more: %v, err %v", c, err)
	}
}
