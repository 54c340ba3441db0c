package ops_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// many sets a scene of failed messages that differ in everything that a filter asks for, one after the other in time.
func many(t *testing.T) database {
	d := open(t)
	d.create("sales", "billing")
	d.exec(`INSERT INTO sqlq.error (id, status, queue, endpoint, host, type, headers, body, attempts, sent_at, first_failed_at, failed_at, archived_at,
			error_type, message, fingerprint)
		SELECT ('0198c0de-0000-7000-8000-00000000000' || i)::uuid, CASE WHEN i = 9 THEN 'archived' ELSE 'failed' END,
			CASE WHEN i <= 5 THEN 'sales' ELSE 'billing' END, 'e', 'h', CASE WHEN i % 2 = 0 THEN 'Even' ELSE 'Odd' END,
			(CASE i WHEN 1 THEN NULL WHEN 2 THEN '[1]' WHEN 3 THEN '{"tenant":"\u0000"}' WHEN 4 THEN '{"tenant":"north","x":"y"}' ELSE '{"tenant":"north"}' END)::json,
			CASE i WHEN 1 THEN '\xff00' WHEN 2 THEN '' WHEN 3 THEN 'no JSON' WHEN 4 THEN convert_to('{"a":"\u0000"}', 'UTF8') ELSE convert_to('{"amount":' || i || ',"paid":' || (i > 6)::text || '}', 'UTF8') END,
			i, now(), now(), '2026-01-01T10:00:00Z'::timestamptz + i * interval '1 minute', NULL, 'e',
			CASE WHEN i % 3 = 0 THEN 'it''s 100% refused by 10.0.0.' || i ELSE E'a Timeout\n\\after ' || i || ' s' END, 'g' || i % 4
		FROM generate_series(1, 9) i`)
	return d
}

func numbers(failed []ops.FailedMessage) string {
	var got []string
	for _, m := range failed {
		got = append(got, fmt.Sprint(m.Number))
	}
	return strings.Join(got, " ")
}

func at(t *testing.T, text string) ops.Moment {
	t.Helper()
	m, err := ops.ParseMoment(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func span(t *testing.T, text string) ops.Range {
	t.Helper()
	r, err := ops.ParseRange(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Each field of a filter chooses what it says, in a list, a count and the groups alike, whatever the messages hold.
func TestFilterFailed(t *testing.T) {
	t.Parallel()
	d := many(t)
	for _, c := range []struct {
		filter ops.Filter
		want   string
	}{
		{ops.Filter{}, "8 7 6 5 4 3 2 1"},
		{ops.Filter{Order: ops.Newest, Limit: 3}, "8 7 6"},
		{ops.Filter{Order: ops.Oldest, Limit: 3}, "1 2 3"},
		{ops.Filter{Status: ops.StatusArchived}, "9"},
		{ops.Filter{Status: ops.StatusAny, Order: ops.Oldest}, "1 2 3 4 5 6 7 8 9"},
		{ops.Filter{Queue: "billing", Status: ops.StatusAny}, "9 8 7 6"},
		{ops.Filter{Type: "Odd"}, "7 5 3 1"},
		{ops.Filter{Group: "g1"}, "5 1"},
		{ops.Filter{Names: []string{"2", "0198C0DE-0000-7000-8000-000000000007", "99"}}, "7 2"},
		{ops.Filter{Names: []string{"2", "7"}, Type: "Odd"}, "7"},
		{ops.Filter{Since: at(t, "2026-01-01T10:07:00Z")}, "8 7"},
		{ops.Filter{Until: at(t, "2026-01-01T10:03:00Z")}, "2 1"},
		{ops.Filter{Since: at(t, "2026-01-01T10:03:00Z"), Until: at(t, "2026-01-01T10:05:00Z"), Order: ops.Oldest}, "3 4"},
		{ops.Filter{Since: ops.Ago(-time.Hour)}, ""},
		{ops.Filter{Until: ops.Ago(-time.Hour), Limit: 1}, "8"},
		{ops.Filter{Attempts: span(t, "3..4")}, "4 3"},
		{ops.Filter{Attempts: span(t, ">6")}, "8 7"},
		{ops.Filter{Attempts: span(t, "<=2")}, "2 1"},
		{ops.Filter{Error: "100% refused"}, "6 3"},
		{ops.Filter{Error: "it's"}, "6 3"},
		{ops.Filter{Error: `\after 4`}, "4"},
		{ops.Filter{Error: "timeout"}, ""},
		{ops.Filter{Error: "/(?i)TIMEOUT/"}, "8 7 5 4 2 1"},
		{ops.Filter{Error: `/10\.0\.0\.[3-5]$/`}, "3"},
		{ops.Filter{Headers: map[string]string{"tenant": "north"}}, "8 7 6 5 4"},
		{ops.Filter{Headers: map[string]string{"tenant": "north", "x": "y"}}, "4"},
		{ops.Filter{Headers: map[string]string{"tenant": "'; DROP TABLE sqlq.error; --"}}, ""},
		{ops.Filter{Body: "$.amount > 6"}, "8 7"},
		{ops.Filter{Body: "$.paid ? (@ == true)"}, "8 7"},
		{ops.Filter{Body: "$.paid == false"}, "6 5"},
		{ops.Filter{Body: "$.amount"}, "8 7 6 5"},
		{ops.Filter{Body: "$.nowhere"}, ""},
		{ops.Filter{Queue: "billing", Type: "Even", Error: "Timeout", Body: "$.amount < 9", Headers: map[string]string{"tenant": "north"}, Attempts: span(t, "8"), Since: at(t, "2026-01-01"), Group: "g0"}, "8"},
	} {
		failed, err := d.Failed.List(t.Context(), c.filter)
		if got := numbers(failed); err != nil || got != c.want {
			t.Errorf("%+v: got %v, err %v, want %s", c.filter, got, err, c.want)
		}
		if c.filter.Limit > 0 {
			continue
		}
		want := int64(len(strings.Fields(c.want)))
		if count, err := d.Failed.Count(t.Context(), c.filter); err != nil || count.N != want {
			t.Errorf("%+v: counted %v, err %v, want %d", c.filter, count, err, want)
		}
		c.filter.Order = ""
		groups, err := d.Failed.Groups(t.Context(), c.filter)
		for _, g := range groups {
			want -= g.Count.N
		}
		if err != nil || want != 0 {
			t.Errorf("%+v: groups %v, err %v", c.filter, groups, err)
		}
	}
}

// A filter that cannot be understood is pointed at, by everything that takes one.
func TestFilterWrong(t *testing.T) {
	t.Parallel()
	d := many(t)
	for _, c := range []struct {
		filter ops.Filter
		field  string
		at     int
	}{
		{ops.Filter{Error: "/a(/"}, "error", 2},
		{ops.Filter{Error: "/a"}, "error", 2},
		{ops.Filter{Error: "//"}, "error", 2},
		{ops.Filter{Body: "$.a >> 3"}, "body", 5},
		{ops.Filter{Error: "a\x00b"}, "error", 1},
		{ops.Filter{Queue: "é\xff"}, "queue", 2},
		{ops.Filter{Type: "\xff"}, "type", 0},
		{ops.Filter{Headers: map[string]string{"a": "\x00"}}, "header a", 0},
	} {
		_, list := d.Failed.List(t.Context(), c.filter)
		_, count := d.Failed.Count(t.Context(), c.filter)
		_, groups := d.Failed.Groups(t.Context(), c.filter)
		for _, err := range []error{list, count, groups} {
			var wrong *ops.FilterError
			if !errors.As(err, &wrong) || wrong.Field != c.field || wrong.At != c.at {
				t.Errorf("%+v: err %v", c.filter, err)
			}
		}
	}
	var none *ops.NoQueueError
	if _, err := d.Failed.Groups(t.Context(), ops.Filter{Queue: "sale"}); !errors.As(err, &none) {
		t.Errorf("groups of no queue: err %v", err)
	}
	if _, err := d.Failed.Count(t.Context(), ops.Filter{Queue: "sale"}); !errors.As(err, &none) {
		t.Errorf("count of no queue: err %v", err)
	}
	if _, err := d.Failed.List(t.Context(), ops.Filter{Order: "sideways"}); err == nil || !strings.Contains(err.Error(), `"sideways"`) {
		t.Errorf("an order that is none: err %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var wrong *ops.FilterError
	if _, err := d.Failed.List(ctx, ops.Filter{Error: "/a/"}); !errors.Is(err, context.Canceled) || errors.As(err, &wrong) {
		t.Errorf("interrupted: err %v", err)
	}
}
