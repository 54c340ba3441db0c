package cli

import (
	"fmt"
	"math"
	"strings"
)

// samplesKept is how many rates a sparkline can show.
const samplesKept = 120

// rates are how fast messages came into a queue and left it, the last sample at the end. NaN is unknown.
type rates struct {
	in, out []float64
}

// ratesAfter adds the rates between two snapshots to those of each queue. Queues that are gone are forgotten.
func ratesAfter(kept map[string]rates, before, now *snapshot) map[string]rates {
	next := make(map[string]rates, len(now.queues))
	earlier := map[string]topQueue{}
	seconds := 0.0
	if before != nil {
		seconds = now.at.Sub(before.at).Seconds()
		for _, q := range before.queues {
			earlier[q.Name] = q
		}
	}
	for _, q := range now.queues {
		in, out := math.NaN(), math.NaN()
		if old, known := earlier[q.Name]; known && seconds > 0 {
			in, out = ratesBetween(old, q, seconds)
		}
		if math.IsNaN(in) && q.in != nil {
			in = *q.in
		}
		if math.IsNaN(out) && q.out != nil {
			out = *q.out
		}
		r := kept[q.Name]
		next[q.Name] = rates{appended(r.in, in), appended(r.out, out)}
	}
	return next
}

// ratesBetween returns what arrived a second, and what left: the arrivals that are not there any more.
func ratesBetween(old, now topQueue, seconds float64) (in, out float64) {
	in, out = math.NaN(), math.NaN()
	if old.arrived == nil || now.arrived == nil || *now.arrived < *old.arrived { // less: it was dropped and made anew
		return in, out
	}
	in = float64(*now.arrived-*old.arrived) / seconds
	if !old.Ready.Estimated && !now.Ready.Estimated {
		out = max(0, in-float64(now.Ready.N-old.Ready.N)/seconds)
	}
	return in, out
}

func appended(series []float64, v float64) []float64 {
	if len(series) >= samplesKept {
		series = series[len(series)-samplesKept+1:]
	}
	return append(append(make([]float64, 0, len(series)+1), series...), v)
}

func (r rates) lastIn() float64  { return last(r.in) }
func (r rates) lastOut() float64 { return last(r.out) }

func last(series []float64) float64 {
	if len(series) == 0 {
		return math.NaN()
	}
	return series[len(series)-1]
}

// total adds the rates of all queues, sample by sample from the end.
func total(all map[string]rates, of func(rates) []float64) []float64 {
	longest := 0
	for _, r := range all {
		longest = max(longest, len(of(r)))
	}
	sum := make([]float64, longest)
	for i := range sum {
		sum[i] = math.NaN()
	}
	for _, r := range all {
		series := of(r)
		for i, v := range series {
			at := longest - len(series) + i
			switch {
			case math.IsNaN(v):
			case math.IsNaN(sum[at]):
				sum[at] = v
			default:
				sum[at] += v
			}
		}
	}
	return sum
}

// sparkline draws the end of a series in so many characters, the highest of it being full. A dot is unknown.
func sparkline(series []float64, width int) string {
	series = series[max(0, len(series)-width):]
	highest := 0.0
	for _, v := range series {
		if v > highest {
			highest = v
		}
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(series)))
	for _, v := range series {
		switch {
		case math.IsNaN(v):
			b.WriteRune('·')
		case highest == 0:
			b.WriteRune(bars[0])
		default:
			b.WriteRune(bars[int(math.Round(v/highest*float64(len(bars)-1)))])
		}
	}
	return b.String()
}

// topRate writes a rate; "-" where it is unknown.
func topRate(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v == 0:
		return "0"
	case v < 9.95:
		return fmt.Sprintf("%.1f", v)
	case v < 99_999.5:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.0fk", v/1000)
	}
}
