package bench

import (
	"encoding/json"
	"testing"
	"time"
)

// The benchmarks themselves are run, in short form, by testdata/script/bench.txtar.

func TestNoteSize(t *testing.T) {
	t.Parallel()
	for _, size := range []int{minSize, 200, maxSize} {
		for _, n := range []int64{0, 7, 123_456_789} {
			for _, at := range []int64{0, time.Now().UnixNano()} {
				body := newNote(n, at, size).body()
				var got note
				if err := json.Unmarshal(body, &got); err != nil || len(body) != size || got.N != n || got.At != at {
					t.Errorf("note %d at %d of %d bytes has %d: %+.40v (%v)", n, at, size, len(body), got, err)
				}
			}
		}
	}
}

func TestPercentiles(t *testing.T) {
	t.Parallel()
	var ds []time.Duration
	for i := range 200 {
		ds = append(ds, time.Duration(200-i)*time.Millisecond)
	}
	want := Percentiles{Count: 200, Min: 1, P50: 100, P95: 190, P99: 198, Max: 200}
	if got := percentiles(ds); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := percentiles([]time.Duration{time.Millisecond}); got.P50 != 1 || got.P99 != 1 {
		t.Errorf("of one: got %+v", got)
	}
	if got := percentiles(nil); got != (Percentiles{}) {
		t.Errorf("of none: got %+v", got)
	}
}

// A batch that was sent first and handled last lags by what the others took; those that came in its place are early.
func TestLagsBehindFIFO(t *testing.T) {
	t.Parallel()
	epoch := time.Unix(1000, 0)
	batches := []committed{{first: 250, at: epoch.Add(2 * time.Second)}, {first: 0, at: epoch.Add(time.Second)}}
	var order handledOrder
	for n := range int64(500) {
		order.add(n, epoch.Add(time.Duration((n+250)%500)*time.Millisecond).UnixNano())
	}
	order.add(7, epoch.Add(time.Hour).UnixNano()) // handled a second time
	lags, err := lagsBehindFIFO(batches, order)
	if err != nil {
		t.Fatal(err)
	}
	for i, lag := range lags {
		if want := 250 * time.Millisecond; i < 250 && lag != want || i >= 250 && lag != 0 {
			t.Fatalf("message %d lags by %v", i, lag)
		}
	}
	if _, err := lagsBehindFIFO(batches, order[:12*499]); err == nil {
		t.Error("a message that was not handled is not noticed")
	}
}

// A process that ended is in the postmaster's sum, and not lost.
func TestUsage(t *testing.T) {
	t.Parallel()
	before := usage{0: 10, 7: 100, 8: 50}
	after := usage{0: 75, 7: 130, 9: 5} // 8 used 10 more before it ended, the postmaster 5
	total, byRole := after.since(before, map[int]string{7: "walwriter"})
	if total != 50 || byRole["walwriter"] != 30 || byRole["other"] != 20 {
		t.Errorf("got %v, %v", total, byRole)
	}
}

func TestHotRow(t *testing.T) {
	t.Parallel()
	seen := map[int64]int{}
	for n := range int64(100_000) {
		row := hotRow(n)
		if row < 0 || row >= hotRows {
			t.Fatalf("message %d has row %d", n, row)
		}
		seen[row]++
	}
	for row, n := range seen {
		if len(seen) != hotRows || n < 800 || n > 1200 {
			t.Fatalf("of %d rows, row %d has %d messages of 100,000", len(seen), row, n)
		}
	}
}
