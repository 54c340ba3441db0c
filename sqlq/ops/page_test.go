package ops_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/hostile"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// pages reads a list page by page, and calls between before each further one.
func pages[M any](t *testing.T, page func(ops.PageOptions) (ops.Page[M], error), number func(M) int64, between func()) (seen []int64) {
	t.Helper()
	opts := ops.PageOptions{Budget: time.Minute}
	for range 100 {
		p, err := page(opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range p.Items {
			seen = append(seen, number(m))
		}
		if opts.After = p.Next; opts.After == "" {
			return seen
		}
		between()
	}
	t.Fatal("the list has no end")
	return nil
}

// Pages have each message once, in order, also where the message that the cursor points at is gone, and others come.
func TestPages(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 25)
	d.fill("sales", 25)
	d.delay("sales", 25, later)
	for _, order := range []ops.Order{ops.Newest, ops.Oldest} {
		f := ops.Filter{Queue: "sales", Limit: 10, Order: order}
		first, last := int64(1), int64(25)
		if order == ops.Newest {
			first, last = last, first
		}
		check := func(what string, seen []int64) {
			t.Helper()
			if len(seen) != 25 || seen[0] != first || seen[24] != last {
				t.Errorf("%s, %s: %v", what, order, seen)
			}
		}
		check("failed", pages(t, func(o ops.PageOptions) (ops.Page[ops.FailedMessage], error) { return d.Failed.Page(t.Context(), f, o) },
			func(m ops.FailedMessage) int64 { return m.Number }, func() {}))
		check("delayed", pages(t, func(o ops.PageOptions) (ops.Page[ops.DelayedMessage], error) {
			return d.Delayed.Page(t.Context(), f, o)
		},
			func(m ops.DelayedMessage) int64 { return m.Number }, func() {}))
		check("ready", pages(t, func(o ops.PageOptions) (ops.Page[ops.Message], error) {
			return d.Ready.Page(t.Context(), "sales", f, o)
		},
			func(m ops.Message) int64 { return m.Seq }, func() {}))
	}
	f := ops.Filter{Queue: "sales", Limit: 10}
	seen := pages(t, func(o ops.PageOptions) (ops.Page[ops.FailedMessage], error) { return d.Failed.Page(t.Context(), f, o) },
		func(m ops.FailedMessage) int64 { return m.Number }, func() {
			d.exec(`DELETE FROM sqlq.error WHERE seq > 14`) // the last of the first page among them
			d.fail("sales", "g1", 3)
		})
	if fmt.Sprint(seen) != "[25 24 23 22 21 20 19 18 17 16 14 13 12 11 10 9 8 7 6 5 4 3 2 1]" {
		t.Errorf("with changes in between: %v", seen)
	}
	page, err := d.Failed.Page(t.Context(), f, ops.PageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []ops.Cursor{"x", "!", "", page.Next + "A"} {
		if _, err := d.Delayed.Page(t.Context(), f, ops.PageOptions{After: wrong}); (err == nil) != (wrong == "") {
			t.Errorf("cursor %q: %v", wrong, err)
		}
	}
	var filter *ops.FilterError
	if _, err := d.Failed.Page(t.Context(), ops.Filter{Queue: "sales", Order: ops.Oldest}, ops.PageOptions{After: page.Next}); !errors.As(err, &filter) {
		t.Errorf("a cursor of the other order: %v", err)
	}
}

// A search that has no more time has a page with what it found, and a cursor from which it goes on to the end.
func TestPagesOfASlowSearch(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fail("sales", "g1", 9000)
	d.exec(`UPDATE sqlq.error SET headers = '{"order":"42"}' WHERE seq = 3`)
	d.fill("sales", 9000)
	d.exec(`UPDATE sqlq.q_sales SET headers = '{"order":"42"}' WHERE seq = 8997`)
	f := ops.Filter{Queue: "sales", Headers: map[string]string{"order": "42"}}
	opts, found, cuts := ops.PageOptions{Budget: 1}, 0, 0
	for range 1000 {
		page, err := d.Failed.Page(t.Context(), f, opts)
		if err != nil {
			t.Fatal(err)
		}
		if found += len(page.Items); page.Cut {
			cuts++
		}
		if opts.After = page.Next; page.Next == "" {
			break
		}
	}
	if found != 1 || cuts < 2 || opts.After != "" {
		t.Errorf("failed: found %d, cut off %d times, next %q", found, cuts, opts.After)
	}
	opts, found, cuts = ops.PageOptions{Budget: 1}, 0, 0
	for range 1000 {
		page, err := d.Ready.Page(t.Context(), "sales", f, opts)
		if err != nil {
			t.Fatal(err)
		}
		if found += len(page.Items); page.Cut {
			cuts++
		}
		if opts.After = page.Next; page.Next == "" {
			break
		}
	}
	if found != 1 || cuts < 2 || opts.After != "" {
		t.Errorf("ready: found %d, cut off %d times, next %q", found, cuts, opts.After)
	}
}

// A message is found wherever it is, with all its copies and what was done to it.
func TestFind(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 1)
	id := d.text(`SELECT id::text FROM sqlq.error`)
	if n, err := d.By(ops.Actor{OSUser: "ann"}).Failed.Archive(t.Context(), ops.Filter{Names: []string{id}}, ops.ChangeOptions{}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	d.fill("billing", 10)
	d.exec(`INSERT INTO sqlq.q_billing (id, type, body) VALUES ($1::text::uuid, 'T', '1')`, id)
	d.fill("billing", 10)
	d.delay("sales", 2, later)
	d.exec(`UPDATE sqlq.delayed SET id = $1::text::uuid WHERE seq = 2`, id)
	found, err := d.Find(t.Context(), id, ops.FindOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, c := range found.Copies {
		got += fmt.Sprintln(c.Place, c.Queue, c.Number)
	}
	if got != "ready billing 11\ndelayed sales 2\narchived sales 1\n" || len(found.History) != 1 || found.History[0].OSUser != "ann" || found.Unlooked != nil {
		t.Errorf("%s%+v, %+v", got, found.History, found.Unlooked)
	}
	if found, err := d.Find(t.Context(), id, ops.FindOptions{Queue: "billing"}); err != nil || len(found.Copies) != 1 {
		t.Errorf("in one queue: %+v, %v", found.Copies, err)
	}
	if found, err := d.Find(t.Context(), id, ops.FindOptions{Queue: "billing", Budget: 1}); err != nil || len(found.Unlooked) != 1 || len(found.Copies) != 0 {
		t.Errorf("without time: %+v, %v", found, err)
	}
	if _, err := d.Find(t.Context(), "17", ops.FindOptions{}); err == nil {
		t.Error("a number is no id")
	}
	var none *ops.NoQueueError
	if _, err := d.Find(t.Context(), id, ops.FindOptions{Queue: "slaes"}); !errors.As(err, &none) {
		t.Errorf("a queue that is not there: %v", err)
	}
	viewer := d.as("viewer", "sales")
	found, err = viewer.Find(t.Context(), id, ops.FindOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range found.Copies {
		if c.Queue != "sales" {
			t.Errorf("a viewer of queue sales finds %+v", c)
		}
	}
}

// Rows that nobody should have written do not keep a page from being read, nor a message from being found.
func TestPagesOfHostileRows(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	hostile.Fill(t, url)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d := ops.New(pool, "sqlq")
	f := ops.Filter{Limit: 3}
	pages(t, func(o ops.PageOptions) (ops.Page[ops.FailedMessage], error) { return d.Failed.Page(t.Context(), f, o) },
		func(m ops.FailedMessage) int64 { return m.Number }, func() {})
	pages(t, func(o ops.PageOptions) (ops.Page[ops.DelayedMessage], error) {
		return d.Delayed.Page(t.Context(), f, o)
	},
		func(m ops.DelayedMessage) int64 { return m.Number }, func() {})
	pages(t, func(o ops.PageOptions) (ops.Page[ops.Message], error) {
		return d.Ready.Page(t.Context(), hostile.Queue, f, o)
	},
		func(m ops.Message) int64 { return m.Seq }, func() {})
	if found, err := d.Find(t.Context(), hostile.GoodID, ops.FindOptions{}); err != nil || len(found.Copies) == 0 {
		t.Errorf("found %+v, %v", found, err)
	}
}

// Operations are chosen by queue, user and time.
func TestOperationsByQueueUserAndTime(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.fail("sales", "g1", 4)
	d.fail("billing", "g2", 1)
	ann, ben := d.By(ops.Actor{OSUser: "ann"}), d.By(ops.Actor{OSUser: "ben"})
	_, err := ann.Failed.Archive(t.Context(), ops.Filter{Queue: "sales", Limit: 1}, ops.ChangeOptions{})
	_, err2 := ben.Failed.Archive(t.Context(), ops.Filter{Queue: "billing"}, ops.ChangeOptions{})
	_, err3 := ben.Queues.Pause(t.Context(), "sales")
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	d.exec(`UPDATE sqlq.operation SET began_at = began_at - interval '1 day' WHERE id = 1`)
	for want, f := range map[string]ops.OperationFilter{
		"3 1 ": {Queue: "sales"}, "2 ": {Queue: "billing"}, "1 ": {User: "ann"}, "3 2 ": {Since: ops.Ago(time.Hour)}, "": {Queue: `s.les`},
		"3 ": {User: "ben", Queue: "sales"},
	} {
		list, err := d.Operations.List(t.Context(), f)
		got := ""
		for _, op := range list {
			got += fmt.Sprint(op.ID, " ")
		}
		if err != nil || got != want {
			t.Errorf("%+v: %q, %v, want %q", f, got, err, want)
		}
	}
}

// An operation is of the queues that it was told or that it changed, and of no other whose name stands somewhere in its filter.
func TestOperationsOfAQueueAreNotOfItsNamesakes(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	operation := func(kind, queue, filter string) {
		d.exec(`INSERT INTO sqlq.operation (kind, queue, filter) VALUES ($1, nullif($2, ''), $3::text::json)`, kind, queue, filter)
	}
	operation("archive", "", `{"headers":{"queue":"sales"}}`)                                     // 1: a header of that name
	operation("archive", "", `{"queue": "sales", "headers": {"tenant": "\u0000"}}`)               // 2: also where PostgreSQL cannot read it
	operation("replay", "billing", `{"queue":"sales"}`)                                           // 3: from one to the other
	operation("grant", "", `{"Role":"web","Queues":["billing","sales"]}`)                         // 4: of several
	operation("archive", "", `{"group":"sales","names":["sales"],"body":"$.queue == \"sales\""}`) // 5: its other words
	operation("archive", "", `"sales"`)                                                           // 6: no filter at all
	operation("pause", "sales", `{}`)                                                             // 7
	for want, f := range map[string]ops.OperationFilter{
		"7 4 3 2 ": {Queue: "sales"}, "4 3 ": {Queue: "billing"}, "7 4 ": {Queue: "sales", Limit: 2}, "2 ": {Queue: "sales", Kind: "archive"},
	} {
		list, err := d.Operations.List(t.Context(), f)
		got := ""
		for _, op := range list {
			got += fmt.Sprint(op.ID, " ")
		}
		if err != nil || got != want {
			t.Errorf("%+v: %q, %v, want %q", f, got, err, want)
		}
	}
	for want, f := range map[string]ops.OperationFilter{"[7 4 3 2]": {Queue: "sales", Limit: 1}, "[7 6 5 4 3 2 1]": {Limit: 3}, "[6 5 2 1]": {Kind: "archive", Limit: 4}} {
		seen := pages(t, func(o ops.PageOptions) (ops.Page[ops.Operation], error) { return d.Operations.Page(t.Context(), f, o) },
			func(op ops.Operation) int64 { return op.ID }, func() { operation("archive", "sales", `{}`) })
		if fmt.Sprint(seen) != want {
			t.Errorf("pages of %+v: %v, want %s", f, seen, want)
		}
		d.exec(`DELETE FROM sqlq.operation WHERE id > 7`)
	}
	if _, err := d.Operations.Page(t.Context(), ops.OperationFilter{}, ops.PageOptions{After: "x"}); err == nil {
		t.Error("a cursor of another list is taken")
	}
	for range 300 { // more than are read at once
		operation("archive", "", `{"headers":{"queue":"sales"}}`)
	}
	if list, err := d.Operations.List(t.Context(), ops.OperationFilter{Queue: "sales"}); len(list) != 4 || err != nil {
		t.Errorf("behind many namesakes: %d, %v", len(list), err)
	}
}

// A page of ready messages leaves headers and bodies out, which a viewer may not read, unless they are asked for.
func TestPagesOfReadyMessagesWithoutBodies(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	d.fill("sales", 12)
	d.exec(`UPDATE sqlq.q_sales SET headers = '{"tenant":"north"}'`)
	viewer := d.as("viewer", "sales")
	for _, order := range []ops.Order{ops.Newest, ops.Oldest} {
		f := ops.Filter{Limit: 5, Order: order}
		seen := pages(t, func(o ops.PageOptions) (ops.Page[ops.Message], error) {
			page, err := viewer.Ready.Page(t.Context(), "sales", f, o)
			for _, m := range page.Items {
				if m.Body != nil || m.Headers != nil || m.Type == "" || m.ID == "" || m.SentAt.IsZero() {
					t.Errorf("a viewer sees %+v", m)
				}
			}
			return page, err
		}, func(m ops.Message) int64 { return m.Seq }, func() {})
		if len(seen) != 12 {
			t.Errorf("%s: %v", order, seen)
		}
	}
	page, err := d.Ready.Page(t.Context(), "sales", ops.Filter{Limit: 1}, ops.PageOptions{Whole: true})
	if err != nil || len(page.Items) != 1 || page.Items[0].Body == nil || page.Items[0].Headers == nil {
		t.Errorf("whole: %+v, %v", page.Items, err)
	}
	if _, err := viewer.Ready.Page(t.Context(), "sales", ops.Filter{Limit: 1}, ops.PageOptions{Whole: true}); err == nil {
		t.Error("a viewer is given bodies")
	}
}

// Leases and instances are listed page by page, each once and in order, also where the one that the cursor points at is gone.
func TestPagesOfLeasesAndInstances(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales", "billing")
	d.exec(`INSERT INTO sqlq.instance (endpoint, host, pid, version, concurrency, lease_time, session_lock)
		SELECT (ARRAY['sales', 'billing'])[1 + n % 2], 'h', n, 'v1', 1, interval '1 minute', true FROM generate_series(1, 9) n`)
	d.exec(`INSERT INTO sqlq.leased (id, type, body, attempt, instance, queue, seq, sent_at, leased_at)
		SELECT sqlq.uuid_v7(), 'T', '1', 0, 1, (ARRAY['sales', 'billing'])[1 + n % 2], n, now(), now() - n / 3 * interval '1 minute' FROM generate_series(1, 9) n`)
	for _, queue := range []string{"", "sales"} {
		leases, err := d.Leases.List(t.Context(), ops.LeaseFilter{Queue: queue})
		instances, err2 := d.Instances.List(t.Context(), ops.InstanceFilter{Endpoint: queue})
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		want := ""
		for _, l := range leases {
			want += fmt.Sprint(l.Number, " ")
		}
		for _, i := range instances {
			want += fmt.Sprint(i.ID, " ")
		}
		got := ""
		for _, n := range append(pages(t, func(o ops.PageOptions) (ops.Page[ops.Lease], error) {
			return d.Leases.Page(t.Context(), ops.LeaseFilter{Queue: queue, Limit: 2}, o)
		}, func(l ops.Lease) int64 { return l.Number }, func() {}),
			pages(t, func(o ops.PageOptions) (ops.Page[ops.Instance], error) {
				return d.Instances.Page(t.Context(), ops.InstanceFilter{Endpoint: queue, Limit: 2}, o)
			}, func(i ops.Instance) int64 { return int64(i.ID) }, func() {})...) {
			got += fmt.Sprint(n, " ")
		}
		if got != want || len(want) < 2*len(leases)+2*len(instances) || len(leases)*len(instances) == 0 {
			t.Errorf("of queue %q: %q, want %q", queue, got, want)
		}
	}
	page, err := d.Leases.Page(t.Context(), ops.LeaseFilter{Limit: 4}, ops.PageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.exec(`DELETE FROM sqlq.leased WHERE lease = $1`, page.Items[3].Number)
	rest, err := d.Leases.Page(t.Context(), ops.LeaseFilter{}, ops.PageOptions{After: page.Next})
	if err != nil || len(rest.Items) != 5 || rest.Next != "" {
		t.Errorf("behind one that is gone: %d, %v", len(rest.Items), err)
	}
	var filter *ops.FilterError
	if _, err := d.Instances.Page(t.Context(), ops.InstanceFilter{}, ops.PageOptions{After: page.Next}); !errors.As(err, &filter) {
		t.Errorf("a cursor of another list: %v", err)
	}
	var none *ops.NoQueueError
	if _, err := d.Leases.Page(t.Context(), ops.LeaseFilter{Queue: "slaes"}, ops.PageOptions{}); !errors.As(err, &none) {
		t.Errorf("a queue that is not there: %v", err)
	}
}

// The timeline has each delayed message once: overdue, in its hour, or later.
func TestTimeline(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.create("sales")
	for due, n := range map[string]int{"'0001-01-01'": 1, "now() - interval '1 minute'": 2, "now() + interval '90 minutes'": 1001, "now() + interval '1000 hours'": 4, "'9999-01-01'": 1} {
		d.exec(`INSERT INTO sqlq.delayed (id, type, body, queue, why, due_at, sent_at) SELECT sqlq.uuid_v7(), 'T', '1', 'sales', 'delay', `+due+`, now() FROM generate_series(1, $1)`, n)
	}
	spans, err := d.Delayed.Timeline(t.Context(), ops.TimelineOptions{})
	if err != nil || len(spans) != 26 {
		t.Fatalf("%d spans, %v", len(spans), err)
	}
	if s := spans[0]; s.From != nil || s.Messages != 3 || s.More || time.Since(*s.Until).Abs() > time.Hour {
		t.Errorf("overdue: %+v", s)
	}
	if s := spans[2]; s.Messages != 1000 || !s.More || s.Until.Sub(*s.From) != time.Hour {
		t.Errorf("in the second hour: %+v", s)
	}
	if s := spans[25]; s.Until != nil || s.Messages != 5 || *s.From != *spans[24].Until {
		t.Errorf("later: %+v", s)
	}
	if spans, err := d.Delayed.Timeline(t.Context(), ops.TimelineOptions{Span: time.Minute, Spans: 2}); err != nil || len(spans) != 4 || !spans[3].More {
		t.Errorf("of two minutes: %+v, %v", spans, err)
	}
	if _, err := d.Delayed.Timeline(t.Context(), ops.TimelineOptions{Spans: 1000}); err == nil {
		t.Error("a thousand spans are counted")
	}
}
