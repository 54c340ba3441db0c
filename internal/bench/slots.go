package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

var slotsBenchmark = Benchmark{
	Name:  "slots",
	Short: "How busy slow handlers are kept",
	Long: `Handle a backlog with handlers that sleep: 1 ms, 10 ms, and exponentially distributed around 100 ms. With so many of them
at a time no more than concurrency ÷ mean messages a second can be handled; the utilisation is what part of that is. It is
measured after a second of warming up, against the mean that was asked for. How long they really slept stands beside it:
the system wakes sleepers a little late.`,
	N: 0, NUsage: "messages in the backlog (default more than can be handled)",
	Concurrency: 100, ConcurrencyUsage: "messages handled at a time",
	Duration: 20 * time.Second,
	run:      func(ctx context.Context, l *rig) (Result, error) { return slotsRun{l}.run(ctx) },
}

type slotsResult struct {
	Head
	Utilisation1ms    float64     `json:"utilisation_1ms"`
	Utilisation10ms   float64     `json:"utilisation_10ms"`
	UtilisationExp100 float64     `json:"utilisation_exp100ms"`
	Handlers          []slotsRate `json:"handlers"`
}

type slotsRate struct {
	Handler     string  `json:"handler"`
	Mean        float64 `json:"mean_ms"`
	Slept       float64 `json:"slept_ms"` // really, on average
	Rate        float64 `json:"rate"`
	Ceiling     float64 `json:"ceiling_rate"` // concurrency ÷ mean
	Utilisation float64 `json:"utilisation"`
}

// slotsRun is a run of `sqlq bench slots`.
type slotsRun struct{ *rig }

func (l slotsRun) run(ctx context.Context) (Result, error) {
	r := &slotsResult{}
	warm := min(time.Second, l.Duration/10)
	for _, c := range []struct {
		name   string
		kind   handlerKind
		mean   time.Duration
		window time.Duration
		into   *float64
	}{
		// Short ones go through a backlog quickly, and it must be made before.
		{"sleeps 1 ms", sleeping, time.Millisecond, l.Duration / 10, &r.Utilisation1ms},
		{"sleeps 10 ms", sleeping, 10 * time.Millisecond, l.Duration / 4, &r.Utilisation10ms},
		{"sleeps exponentially around 100 ms", sleepingExp, 100 * time.Millisecond, l.Duration * 2 / 5, &r.UtilisationExp100},
	} {
		measured, err := l.sleepers(ctx, c.kind, c.mean, warm, c.window)
		if err != nil {
			return nil, fmt.Errorf("handler that %s: %w", c.name, err)
		}
		measured.Handler, *c.into = c.name, measured.Utilisation
		r.Handlers = append(r.Handlers, measured)
	}
	return r, nil
}

// sleepers measures the rate of sleeping handlers over a window that begins when they have been warm for a while.
func (l slotsRun) sleepers(ctx context.Context, kind handlerKind, mean, warm, window time.Duration) (r slotsRate, err error) {
	const queue = "slots"
	if err := l.db.queues(ctx, queue); err != nil {
		return r, err
	}
	if err := l.db.empty(ctx, queue); err != nil {
		return r, err
	}
	ceiling := float64(l.Concurrency) / mean.Seconds()
	backlog := l.N
	if backlog == 0 {
		backlog = int(ceiling*(warm+window).Seconds()*1.2) + 2*l.Concurrency
	}
	if err := l.fill(ctx, queue, backlog); err != nil {
		return r, err
	}
	all, err := l.receivers.employ(ctx, 1, spec{Queues: []string{queue}, Handler: kind, Sleep: mean})
	if err != nil {
		return r, err
	}
	if err := all.await(ctx, func() bool { return all.handled() > 0 }, "nothing is handled"); err != nil {
		return r, err
	}
	began := time.Now()
	err = all.await(ctx, func() bool {
		l.progress("handlers that sleep around %v: handled %s", mean, lab.Thousands(all.handled()))
		return time.Since(began) > warm+window || all.handled() >= int64(backlog-l.Concurrency)
	}, "receiving stands still")
	if err != nil {
		return r, err
	}
	from, to := all[0].handledAt(began.Add(warm)), all[0].handledAt(time.Now())
	if to == from {
		from = all[0].first() // the backlog was over before it was warm
	}
	rate := perSecondOf(to.handled-from.handled, to.at.Sub(from.at))
	receipt, err := l.receivers.dismiss(ctx, all)
	if err != nil {
		return r, err
	}
	return slotsRate{
		Mean: milliseconds(mean), Slept: milliseconds(receipt.Slept / time.Duration(max(1, receipt.Handled))),
		Rate: round(rate, 1), Ceiling: round(ceiling, 1), Utilisation: ratio(rate, ceiling),
	}, nil
}

// Tables implements Result.
func (r *slotsResult) Tables() []Table {
	t := Table{
		Title:   fmt.Sprintf("Handlers of messages of %d bytes, %d at a time", r.Size, r.Concurrency),
		Columns: []string{"each", "really slept", "handled", "at most", "utilisation"},
	}
	for _, h := range r.Handlers {
		t.add(h.Handler, millisecondsText(h.Slept), perSecond(h.Rate), perSecond(h.Ceiling), ratioText(h.Utilisation))
	}
	return []Table{t}
}
