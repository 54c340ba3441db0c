package ops_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

func TestGroupFailed(t *testing.T) {
	t.Parallel()
	d := many(t)
	d.exec(`UPDATE sqlq.error SET fingerprint = 'g0' WHERE seq = 9`)
	groups, err := d.Failed.Groups(t.Context(), ops.Filter{Status: ops.StatusAny})
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
		groups, err := d.Failed.Groups(t.Context(), c.filter)
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
	s := query.New("sqlq")
	for _, f := range []query.Filter{{}, {Status: "failed"}, {Status: "archived"}, {Status: "failed", Queue: "sales", Error: "Timeout"},
		{Headers: [][2]string{{"tenant", "north"}}, Body: "$.amount"}} {
		exact, err := s.GroupFailed(t.Context(), d.pool, query.GroupByFingerprint, f)
		if err != nil {
			t.Fatal(err)
		}
		estimated, err := s.EstimateGroups(t.Context(), d.pool, query.GroupByFingerprint, f)
		if err != nil {
			t.Fatal(err)
		}
		each := func(groups []query.FailedGroup) map[string]int64 {
			n := map[string]int64{}
			for _, g := range groups {
				n[strings.Join([]string{g.Key, g.Queue, g.Type, g.Status, g.FirstAt.String(), g.LastAt.String(), fmt.Sprint(g.Seq)}, " ")] += g.N
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

// Groups that are looked up one by one are those that counting all finds, each with its first and last failure.
func TestGroupsListed(t *testing.T) {
	t.Parallel()
	d := many(t)
	s := query.New("sqlq")
	for _, f := range []query.Filter{{}, {Status: "failed"}, {Status: "archived"}, {Status: "failed", Fingerprint: "g1"}, {Fingerprint: "none"},
		{Since: query.Moment{At: at(t, "2026-01-01T10:03:00Z").At}, Until: query.Moment{At: at(t, "2026-01-01T10:08:00Z").At}}} {
		all, err := s.GroupFailed(t.Context(), d.pool, query.GroupByFingerprint, f)
		if err != nil {
			t.Fatal(err)
		}
		type group struct {
			n           int64
			first, last time.Time
		}
		want, got := map[string]group{}, map[string]group{}
		for _, g := range all {
			w, there := want[g.Key+g.Status]
			if !there || g.FirstAt.Before(w.first) {
				w.first = g.FirstAt
			}
			if g.LastAt.After(w.last) {
				w.last = g.LastAt
			}
			w.n += g.N
			want[g.Key+g.Status] = w
		}
		listed, upTo, err := s.ListGroups(t.Context(), d.pool, f, 100)
		if err != nil || upTo < 100 && len(listed) > 0 {
			t.Fatalf("%+v: counted up to %d, err %v", f, upTo, err)
		}
		for _, g := range listed {
			got[g.Key+g.Status] = group{g.N, g.FirstAt, g.LastAt}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: listed %v, want %v", f, got, want)
		}
	}
	if listed, _, err := s.ListGroups(t.Context(), d.pool, query.Filter{Status: "failed"}, 2); err != nil || len(listed) != 2 {
		t.Errorf("two of them: %v, err %v", listed, err)
	}
}

// Where the planner expects very many messages, groups come from a sample and from looking them up: none is missing, and the
// small ones are counted.
func TestGroupsOfVeryMany(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "large", 2000)
	d.fail("sales", "small", 3)
	d.exec(`UPDATE sqlq.error SET status = 'archived', archived_at = now() WHERE seq = 2001`)
	d.exec(`ANALYZE sqlq.error`)
	d.exec(`UPDATE pg_class SET reltuples = reltuples * 1000 WHERE oid = 'sqlq.error'::regclass`)
	groups, err := d.Failed.Groups(t.Context(), ops.Filter{Status: ops.StatusAny})
	if err != nil || len(groups) != 2 {
		t.Fatalf("%+v, err %v", groups, err)
	}
	if g := groups[0]; g.Group != "large" || g.Count != (ops.Count{N: 2000, Estimated: true}) { // the sample is the whole table
		t.Errorf("%+v", g)
	}
	if g := groups[1]; g.Group != "small" || g.Count != (ops.Count{N: 3}) || g.Archived != 1 || g.Number != 2003 || g.ErrorType == "" || fmt.Sprint(g.Queues) != "[sales]" {
		t.Errorf("%+v", g)
	}
}

// Counts are exact up to the limit, and estimated above it.
func TestCountFailed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", ops.CountLimit)
	d.fail("sales", "g2", 2)
	if c, err := d.Failed.Count(t.Context(), ops.Filter{Group: "g2", Limit: 1}); err != nil || c.N != 2 {
		t.Errorf("few: %v, err %v", c, err)
	}
	if c, err := d.Failed.Count(t.Context(), ops.Filter{Group: "g1"}); err != nil || c.N < ops.CountLimit || c.Estimated && c.N != ops.CountLimit {
		t.Errorf("the limit: %v, err %v", c, err)
	}
	if c, err := d.Failed.Count(t.Context(), ops.Filter{}); err != nil || c.N != ops.CountLimit+2 || !c.Estimated { // the sample is the whole table
		t.Errorf("more: %v, err %v", c, err)
	}
}

// Failed messages are grouped by what a page asks for, exactly and by an estimate.
func TestGroupsBy(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 3)
	d.fail("sales", "g2", 1)
	d.fail("billing", "g1", 2)
	d.exec(`UPDATE sqlq.error SET type = 'T2', host = 'h2', error_type = '*net.OpError' WHERE seq IN (1, 2)`)
	for by, want := range map[ops.GroupBy]string{
		ops.ByFault: "g1:5 g2:1 ", ops.ByQueue: "sales:4 billing:2 ", ops.ByType: "sales.PlaceOrder:4 T2:2 ", ops.ByHost: "h1:4 h2:2 ",
		ops.ByErrorType: "*errors.errorString:4 *net.OpError:2 ",
	} {
		groups, err := d.Failed.GroupsBy(t.Context(), by, ops.Filter{})
		got := ""
		for _, g := range groups {
			got += fmt.Sprintf("%s:%d ", g.Group, g.Count.N)
			if g.By != by || g.ErrorType == "" || g.Number == 0 || len(g.Queues) == 0 {
				t.Errorf("by %s: %+v", by, g)
			}
		}
		if err != nil || got != want {
			t.Errorf("by %s: %q, %v, want %q", by, got, err, want)
		}
	}
	for _, by := range []query.GroupColumn{query.GroupByQueue, query.GroupByType, query.GroupByHost, query.GroupByErrorType} {
		estimated, err := query.New("sqlq").EstimateGroups(t.Context(), d.pool, by, query.Filter{Status: "failed"})
		if err != nil || len(estimated) == 0 {
			t.Errorf("estimated by %s: %v, %v", by, estimated, err)
		}
	}
	if _, err := d.as("viewer", "sales").Failed.GroupsBy(t.Context(), ops.ByHost, ops.Filter{}); err != nil {
		t.Errorf("as a viewer: %v", err)
	}
	if _, err := d.Failed.GroupsBy(t.Context(), "headers", ops.Filter{}); err == nil {
		t.Error("they are grouped by headers")
	}
}
