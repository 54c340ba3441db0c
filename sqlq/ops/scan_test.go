package ops_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/sqlq/ops"
	"github.com/sqlq/sqlq/sqlq/ops/internal/query"
)

// However a scan is cut into chunks, it returns the same messages in the same order, each once, those included that failed
// at the same moment.
func TestScanChunks(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 40)
	d.exec(`UPDATE sqlq.error SET failed_at = '2026-01-01'::timestamptz + (seq / 3 % 7) * interval '1 microsecond', type = 'T' || seq % 2,
		status = CASE WHEN seq % 4 = 0 THEN 'archived' ELSE 'failed' END, message = CASE WHEN seq % 5 = 0 THEN 'rare' ELSE 'often' END`)
	for _, c := range []struct {
		filter query.Filter
		where  string
	}{
		{query.Filter{}, `true`},
		{query.Filter{Status: "failed"}, `status = 'failed'`},
		{query.Filter{Status: "failed", Type: "T1"}, `status = 'failed' AND type = 'T1'`},
		{query.Filter{Error: "rare"}, `message = 'rare'`},
		{query.Filter{Type: "T0", Pattern: "^rare"}, `type = 'T0' AND message = 'rare'`},
		{query.Filter{Status: "archived", Error: "nowhere"}, `false`},
	} {
		for _, oldest := range []bool{false, true} {
			direction := map[bool]string{false: "DESC", true: "ASC"}[oldest]
			want := d.text(fmt.Sprintf(`SELECT coalesce(string_agg(seq::text, ' ' ORDER BY failed_at %[1]s, seq %[1]s), '') FROM sqlq.error WHERE %[2]s`, direction, c.where))
			for _, size := range [][2]int{{1, 1}, {1, 9}, {2, 1}, {3, 2}, {4, 3}, {5, 5}, {10, 4}, {39, 40}, {40, 40}, {40, 1}, {41, 7}, {1000, 1000}} {
				scan := query.FailedScan{Oldest: oldest, Look: size[0], Limit: size[1], Sizes: size[0] == 4}
				var got []string
				for chunks := 0; ; chunks++ {
					chunk, err := query.New("sqlq").NextFailed(t.Context(), d.pool, c.filter, scan)
					if err != nil || len(chunk.Failed) > size[1] || chunks > 100 {
						t.Fatalf("%+v, %+v: %d messages, err %v", c.filter, scan, len(chunk.Failed), err)
					}
					for _, m := range chunk.Failed {
						got = append(got, fmt.Sprint(m.Seq))
					}
					if chunk.Next == nil {
						break
					}
					scan.After = chunk.Next
				}
				if strings.Join(got, " ") != want {
					t.Errorf("%+v, %+v:\n got %s\nwant %s", c.filter, scan, strings.Join(got, " "), want)
				}
			}
		}
	}
}

// A long search says how far it is, and goes on until it has found what it looks for.
func TestEachFailedFar(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 45_000)
	d.exec(`UPDATE sqlq.error SET message = 'rare' WHERE seq IN (2, 24999, 44999)`)
	var told []int64
	var got []string
	opts := ops.EachOptions{Progress: func(p ops.Progress) { told = append(told, p.Looked) }}
	each := func(m ops.FailedMessage) error {
		got = append(got, fmt.Sprint(m.Number))
		return nil
	}
	if err := d.Failed.Each(t.Context(), ops.Filter{Error: "rare"}, opts, each); err != nil || fmt.Sprint(got) != "[44999 24999 2]" || fmt.Sprint(told) != "[20000 40000]" {
		t.Errorf("got %v, err %v, told %v", got, err, told)
	}
	// What fails meanwhile is left out, also where it would come last.
	count := 0
	err := d.Failed.Each(t.Context(), ops.Filter{Order: ops.Oldest}, ops.EachOptions{}, func(m ops.FailedMessage) error {
		if count++; m.Number == 45_000 {
			d.fail("sales", "g1", 3)
		} else if m.Number > 45_000 {
			t.Errorf("%d failed after it began", m.Number)
		}
		return nil
	})
	if err != nil || count != 45_000 {
		t.Errorf("%d messages, err %v", count, err)
	}
	enough := errors.New("enough")
	if err := d.Failed.Each(t.Context(), ops.Filter{}, ops.EachOptions{}, func(ops.FailedMessage) error { return enough }); err != enough {
		t.Errorf("err %v", err)
	}
}

// Whole messages have all that is kept, in order, also when their bodies are too large to be read together; one that goes
// away meanwhile is left out.
func TestEachFailedWhole(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 210)
	d.exec(`UPDATE sqlq.error SET body = convert_to(repeat('x', 5 << 20), 'UTF8') WHERE seq IN (2, 3, 5)`)
	d.exec(`UPDATE sqlq.error SET body = convert_to(repeat('x', 9 << 20), 'UTF8'), stack = 's', chain = '{c}' WHERE seq = 4`)
	var got []int64
	err := d.Failed.Each(t.Context(), ops.Filter{Order: ops.Oldest}, ops.EachOptions{Whole: true}, func(m ops.FailedMessage) error {
		got = append(got, m.Number)
		want := map[int64]int{2: 5 << 20, 3: 5 << 20, 4: 9 << 20, 5: 5 << 20}[m.Number]
		switch {
		case want > 0 && !bytes.Equal(m.Body, bytes.Repeat([]byte{'x'}, want)), want == 0 && string(m.Body) != `{"order":1}`, string(m.Headers) != `{"tenant":"north"}`:
			t.Errorf("%d: headers %s and a body of %d bytes", m.Number, m.Headers, len(m.Body))
		case m.Number == 4 && (m.Stack != "s" || len(m.Chain) != 1):
			t.Errorf("%d: stack %q, chain %q", m.Number, m.Stack, m.Chain)
		case m.Number == 1:
			d.exec(`DELETE FROM sqlq.error WHERE seq = 209`)
		}
		return nil
	})
	var want []int64
	for n := int64(1); n <= 210; n++ {
		if n != 209 {
			want = append(want, n)
		}
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, err %v", got, err)
	}
}

// What looks into bodies and headers works where the server would have several processes look.
func TestScanOfALargeTable(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.fail("sales", "g1", 20_000)
	d.exec(`ANALYZE sqlq.error`)
	config := d.pool.Config()
	for _, cost := range []string{"parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"} {
		config.ConnConfig.RuntimeParams[cost] = "0"
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	f := ops.Filter{Headers: map[string]string{"tenant": "north"}, Body: "$.order > 1"}
	if v, err := ops.New(pool, "sqlq").Failed.PreviewDelete(t.Context(), f, ops.ChangeOptions{}); err != nil || v.Messages.N != 0 {
		t.Errorf("%+v, err %v", v, err)
	}
}
