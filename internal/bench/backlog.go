package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

var backlogBenchmark = Benchmark{
	Name:  "backlog",
	Short: "Whether a large backlog is handled as fast as a small one",
	Long: `Handle the first messages of a backlog of millions, and a backlog of 200,000, or a tenth of the large one if that is less.
The two take turns; the large one loses a little each time.

The large backlog is made of messages that the library sent, multiplied inside the server.`,
	N: 5_000_000, NUsage: "messages that wait",
	ConcurrencyUsage: "messages handled at a time (default 4 × cores)",
	Duration:         60 * time.Second,
	run:              func(ctx context.Context, l *rig) (Result, error) { return backlogRun{l}.run(ctx) },
}

type backlogResult struct {
	Head
	Waiting         int      `json:"waiting"`
	Handled         int      `json:"handled"` // in each round, of either
	Rounds          int      `json:"rounds"`
	FirstRate       float64  `json:"first_rate"` // of the first round from the large backlog
	Rate            float64  `json:"rate"`
	SmallRate       float64  `json:"small_rate"`
	Ratio           float64  `json:"ratio"`
	PeakRSSMiB      *float64 `json:"peak_rss_mib"`
	SmallPeakRSSMiB *float64 `json:"small_peak_rss_mib"`
	TableBytes      int64    `json:"table_bytes"`
	IndexBytes      int64    `json:"index_bytes"`
}

// backlogRun is a run of `sqlq bench backlog`.
type backlogRun struct{ *rig }

func (l backlogRun) run(ctx context.Context) (Result, error) {
	const large, small = "large", "small"
	if err := l.db.queues(ctx, large, small); err != nil {
		return nil, err
	}
	r := &backlogResult{Waiting: max(10, l.N)}
	r.Handled = min(200_000, r.Waiting/10)
	if err := l.fillLarge(ctx, large, r.Waiting); err != nil {
		return nil, err
	}
	var err error
	if r.TableBytes, r.IndexBytes, err = l.stats.sizes(ctx, large); err != nil {
		return nil, err
	}
	var rates, smallRates, memory, smallMemory lab.Series
	waiting := r.Waiting
	r.Rounds, err = l.rounds(ctx, enoughRounds, func(n int) error {
		take := func(queue string, rates, memory *lab.Series) (int64, error) {
			receipt, err := l.receivers.receive(ctx, 1, spec{Queues: []string{queue}, Handler: counting}, int64(r.Handled))
			*rates = append(*rates, receipt.rate())
			*memory = append(*memory, float64(receipt.PeakMemory)/(1<<20))
			return receipt.Handled, err
		}
		return alternate(n, func() error {
			if waiting < r.Waiting/2 { // it is not large any more
				if err := l.fillLarge(ctx, large, r.Waiting-waiting); err != nil {
					return err
				}
				waiting = r.Waiting
			}
			handled, err := take(large, &rates, &memory)
			waiting -= int(handled)
			return err
		}, func() error {
			if err := l.db.empty(ctx, small); err != nil {
				return err
			}
			if err := l.fill(ctx, small, r.Handled); err != nil {
				return err
			}
			_, err := take(small, &smallRates, &smallMemory)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	r.FirstRate, r.Rate, r.SmallRate = round(rates[0], 0), round(rates.Median(), 0), round(smallRates.Median(), 0)
	r.Ratio = ratio(rates.Median(), smallRates.Median())
	r.PeakRSSMiB, r.SmallPeakRSSMiB = measured(memory, 1), measured(smallMemory, 1)
	return r, nil
}

// fillLarge makes a backlog of messages that equal what the library sends.
func (l backlogRun) fillLarge(ctx context.Context, queue string, n int) error {
	seed := min(n, 10_000)
	if err := l.db.empty(ctx, floorQueue); err != nil {
		return err
	}
	if err := l.fill(ctx, floorQueue, seed); err != nil {
		return err
	}
	for sent := 0; sent < n; {
		l.progress("filling queue %s: %s of %s", queue, lab.Thousands(int64(sent)), lab.Thousands(int64(n)))
		tag, err := l.db.pool.Exec(ctx, fmt.Sprintf(`
			INSERT INTO %s (id, type, headers, body)
			SELECT gen_random_uuid(), type, headers, body FROM %s CROSS JOIN generate_series(1, 20) LIMIT $1`,
			table(queue), table(floorQueue)), n-sent)
		if err != nil {
			return fmt.Errorf("fill queue %q: %w", queue, err)
		}
		sent += int(tag.RowsAffected())
	}
	l.progress("checkpoint")
	return l.db.checkpoint(ctx)
}

// Tables implements Result.
func (r *backlogResult) Tables() []Table {
	t := Table{
		Title: fmt.Sprintf("The first %s messages of %d bytes of a backlog; %s",
			lab.Thousands(int64(r.Handled)), r.Size, ofRounds(r.Rounds)),
		Columns: []string{"", "messages", "ratio", "receiver's peak memory"},
	}
	memory := func(m *float64) string {
		return orNone(m, func(m float64) string { return fmt.Sprintf("%.1f MiB", m) })
	}
	t.add(lab.Thousands(int64(r.Waiting))+" waiting", perSecond(r.Rate), ratioText(r.Ratio), memory(r.PeakRSSMiB))
	t.add("  of that the first time", perSecond(r.FirstRate), "", "")
	t.add(lab.Thousands(int64(r.Handled))+" waiting", perSecond(r.SmallRate), ratioText(1), memory(r.SmallPeakRSSMiB))
	size := Table{Title: "The large backlog", Columns: []string{"", ""}}
	size.add("table", mebibytes(r.TableBytes))
	size.add("index", mebibytes(r.IndexBytes))
	return []Table{t, size}
}
