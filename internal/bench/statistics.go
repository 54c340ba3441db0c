package bench

import (
	"math"
	"slices"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// ratio compares what the printed figures say: the medians. 0 when there is nothing to compare with.
func ratio(ours, floor float64) float64 {
	if floor == 0 {
		return 0
	}
	return round(ours/floor, 3)
}

// perSecondOf returns how many a second n in d are.
func perSecondOf(n int64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

func round(x float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(x*scale) / scale
}

// Percentiles describe how durations are spread, in milliseconds.
type Percentiles struct {
	Count int     `json:"count"`
	Min   float64 `json:"min_ms"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// percentiles sorts the durations.
func percentiles(ds []time.Duration) Percentiles {
	if len(ds) == 0 {
		return Percentiles{}
	}
	slices.Sort(ds)
	at := func(p int) float64 { return milliseconds(lab.Percentile(ds, p)) }
	return Percentiles{Count: len(ds), Min: milliseconds(ds[0]), P50: at(50), P95: at(95), P99: at(99), Max: milliseconds(ds[len(ds)-1])}
}

// cells writes the percentiles for a table.
func (p Percentiles) cells() []string {
	return []string{millisecondsText(p.P50), millisecondsText(p.P95), millisecondsText(p.P99), millisecondsText(p.Max)}
}
