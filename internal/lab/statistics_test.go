package lab_test

import (
	"testing"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		of   lab.Series
		want float64
	}{
		{nil, 0},
		{lab.Series{3}, 3},
		{lab.Series{4, 1}, 2.5},
		{lab.Series{9, 1, 5}, 5},
	} {
		if got := c.of.Median(); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.of, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	var ds []time.Duration
	for i := range 200 {
		ds = append(ds, time.Duration(i+1))
	}
	for p, want := range map[int]time.Duration{0: 1, 50: 100, 95: 190, 99: 198, 100: 200} {
		if got := lab.Percentile(ds, p); got != want {
			t.Errorf("p%d: got %d, want %d", p, got, want)
		}
	}
	for _, p := range []int{0, 1, 50, 99, 100} {
		if got := lab.Percentile(ds[6:7], p); got != 7 {
			t.Errorf("p%d of one: got %d", p, got)
		}
	}
	if got := lab.Percentile(nil, 50); got != 0 {
		t.Errorf("of none: got %d", got)
	}
}

func TestThousands(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -100: "-100", -1234567: "-1,234,567", -1 << 63: "-9,223,372,036,854,775,808"} {
		if got := lab.Thousands(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
