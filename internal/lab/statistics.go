package lab

import (
	"slices"
	"strconv"
	"time"
)

// Series are measurements of one thing, one per round.
type Series []float64

// Median returns the middle measurement, or the mean of the two in the middle; 0 if there are none.
func (s Series) Median() float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// Percentile returns the smallest of the durations that at least p percent of them do not exceed; 0 if there are none. They must be sorted.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

// Milliseconds returns a duration as JSON reports show it.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Thousands writes a number with commas.
func Thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	first := 0 // digit
	if n < 0 {
		first = 1
	}
	for i := len(text) - 3; i > first; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
