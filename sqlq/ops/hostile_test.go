package ops_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/devpg/pgtest"
	"github.com/sqlq/sqlq/internal/hostile"
	"github.com/sqlq/sqlq/migrations"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// oddly are settings of sessions that change how values look as text, and what text means.
const oddly = `datestyle = 'German'; intervalstyle = 'sql_standard'; bytea_output = 'escape'; timezone = 'Asia/Kathmandu'; extra_float_digits = -15; xmlbinary = 'hex';
	standard_conforming_strings = off; quote_all_identifiers = on; lc_monetary = 'C'; default_transaction_isolation = 'serializable'; search_path = 'pg_catalog'`

// seen is all that ops tells of a schema, but for what changes with the time.
func seen(t *testing.T, o *ops.Ops) map[string]any {
	t.Helper()
	ctx, all := t.Context(), map[string]any{}
	add := func(what string, v any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		all[what] = v
	}
	queues, err := o.Queues.List(ctx)
	for i := range queues {
		queues[i].OldestAge = nil
	}
	add("queues", queues, err)
	for _, queue := range []string{hostile.Queue, hostile.Good} {
		_, err = o.Queues.Show(ctx, queue)
		add("queue "+queue, nil, err)
	}
	for _, f := range []ops.Filter{{Status: ops.StatusAny}, {Status: ops.StatusAny, Order: ops.Oldest}, {Body: "$.order"}, {Body: "$.**"}, {Headers: map[string]string{"tenant": "north"}}, {Error: "plain"}} {
		name := fmt.Sprintf("%+v", f)
		failed, err := o.Failed.List(ctx, f)
		add("failed "+name, failed, err)
		var whole []ops.FailedMessage
		err = o.Failed.Each(ctx, f, ops.EachOptions{Whole: true}, func(m ops.FailedMessage) error { whole = append(whole, m); return nil })
		add("whole "+name, whole, err)
		groups, err := o.Failed.Groups(ctx, f)
		add("groups "+name, groups, err)
		_, err = o.Failed.Count(ctx, f)
		add("count "+name, nil, err)
		f.Status, f.Error = "", ""
		delayed, err := o.Delayed.List(ctx, f)
		for i := range delayed {
			delayed[i].DueIn = 0
		}
		add("delayed "+name, delayed, err)
		ready, err := o.Ready.List(ctx, hostile.Queue, f, ops.Looking{})
		add("ready "+name, ready, err)
		var lines []byte
		err = o.Delayed.Each(ctx, hostile.Queue, f, ops.Looking{}, func(m ops.Message) (err error) { lines, err = ops.AppendLine(lines, m); return err })
		add("lines "+name, lines, err)
	}
	leases, err := o.Leases.List(ctx, ops.LeaseFilter{})
	for i := range leases {
		leases[i].For = 0
	}
	add("leases", leases, err)
	instances, err := o.Instances.List(ctx, ops.InstanceFilter{All: true})
	add("instances", instances, err)
	operations, err := o.Operations.List(ctx, ops.OperationFilter{Limit: 1000})
	add("operations", operations, err)
	subscriptions, err := o.Routes.List(ctx, "", "")
	add("subscriptions", subscriptions, err)
	history, err := o.History(ctx, hostile.GoodID)
	add("history", history, err)
	d, err := o.Doctor.Examine(ctx, ops.DoctorOptions{WantVersion: migrations.Latest(), Within: 5 * time.Minute})
	add("doctor", nil, err)
	for _, c := range d.Checks {
		if c.NotRun != "" {
			t.Errorf("doctor's check %q was not made: %s", c.Name, c.NotRun)
		}
	}
	return all
}

// difference is the first thing in which two lists differ; messages may be large.
func difference(got, want any) string {
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	if g.Kind() != reflect.Slice || w.Kind() != reflect.Slice || g.Len() != w.Len() {
		return fmt.Sprintf("%T and %T of other lengths", got, want)
	}
	for i := range g.Len() {
		a, b := g.Index(i), w.Index(i)
		if reflect.DeepEqual(a.Interface(), b.Interface()) {
			continue
		}
		if a.Kind() != reflect.Struct {
			return fmt.Sprintf("item %d", i)
		}
		for f := range a.NumField() {
			if x, y := a.Field(f).Interface(), b.Field(f).Interface(); !reflect.DeepEqual(x, y) {
				return fmt.Sprintf("item %d, %s: %.100q and %.100q", i, a.Type().Field(f).Name, fmt.Sprint(x), fmt.Sprint(y))
			}
		}
	}
	return "nothing"
}

// How sessions are set is the caller's own: a role or a database with other settings, in every mode of the driver, sees the same.
func TestSessionsMaySetWhatTheyLike(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	hostile.Fill(t, url)
	d := openSchema(t, url, "sqlq")
	want := seen(t, d.Ops)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		config, err := pgxpool.ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		config.ConnConfig.DefaultQueryExecMode = mode
		for setting := range strings.SplitSeq(oddly, ";") {
			name, value, _ := strings.Cut(setting, "=")
			if name = strings.TrimSpace(name); name == "standard_conforming_strings" && mode == pgx.QueryExecModeSimpleProtocol {
				continue // the driver refuses it
			}
			config.ConnConfig.RuntimeParams[name] = strings.Trim(strings.TrimSpace(value), "'")
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		var differ []string
		// On a busy machine a count may be estimated, and an instance late, in one of them: both are looked at until neither is.
		for deadline := time.Now().Add(2 * time.Minute); ; {
			differ = nil
			got := seen(t, ops.New(pool, "sqlq"))
			for what := range want {
				if !reflect.DeepEqual(got[what], want[what]) {
					differ = append(differ, fmt.Sprintf("mode %v: %.200s differ: %s", mode, what, difference(got[what], want[what])))
				}
			}
			if len(differ) == 0 || time.Now().After(deadline) {
				break
			}
			want = seen(t, d.Ops)
		}
		pool.Close()
		for _, text := range differ {
			t.Error(text)
		}
	}
}

// Messages that failed at an infinite time have a place in the order, and each is seen once, whatever is read at a time.
func TestInfiniteTimesHaveAPlace(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	hostile.Fill(t, url)
	d := openSchema(t, url, "sqlq")
	if _, err := d.pool.Exec(t.Context(), `INSERT INTO sqlq.error (id, queue, endpoint, host, type, body, attempts, sent_at, first_failed_at, failed_at, error_type, message, fingerprint)
		SELECT gen_random_uuid(), 'many', 'e', 'h', 'T', '{}', 1, now(), now(), CASE WHEN n % 2 = 0 THEN 'infinity' ELSE '-infinity' END::timestamptz, 'e', 'm', 'g' FROM generate_series(1, 2500) n`); err != nil {
		t.Fatal(err)
	}
	for _, order := range []ops.Order{ops.Newest, ops.Oldest} {
		numbers := map[int64]int{}
		var last time.Time
		err := d.Failed.Each(t.Context(), ops.Filter{Queue: "many", Order: order}, ops.EachOptions{}, func(m ops.FailedMessage) error {
			if numbers[m.Number]++; numbers[m.Number] > 1 {
				return fmt.Errorf("message %d comes twice", m.Number)
			}
			if !last.IsZero() && (m.FailedAt.After(last)) != (order == ops.Oldest) && !m.FailedAt.Equal(last) {
				return fmt.Errorf("%s after %s", m.FailedAt, last)
			}
			last = m.FailedAt
			return nil
		})
		if err != nil || len(numbers) != 2500 {
			t.Errorf("%s: %d messages, %v", order, len(numbers), err)
		}
	}
	if n, err := d.Failed.Archive(t.Context(), ops.Filter{Queue: "many"}, ops.ChangeOptions{}); err != nil || n != 2500 {
		t.Errorf("archived %d, %v", n, err)
	}
	if n, err := d.Failed.Delete(t.Context(), ops.Filter{Queue: "many", Status: ops.StatusArchived}, ops.ChangeOptions{}); err != nil || n != 2500 {
		t.Errorf("deleted %d, %v", n, err)
	}
	var line []byte
	err := d.Ready.Each(t.Context(), hostile.Queue, ops.Filter{}, ops.Looking{}, func(m ops.Message) (err error) {
		if line, err = ops.AppendLine(line[:0], m); err == nil && bytes.Count(line, []byte("\n")) != 1 {
			err = fmt.Errorf("not a line: %.200s", line)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
