package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
)

var horizonBenchmark = Benchmark{
	Name:  "horizon",
	Short: "Handle a backlog while vacuum cannot clean up",
	Long: `Handle a backlog before and while another transaction holds an XID and a snapshot, as a long report or pg_dump does, and
many messages have been consumed under it, whose dead rows nothing can remove: with at most 50 and at most 500 messages a
fetch, with one and with four processes. Before means on an emptied table with nobody holding anything; it is measured
again at the end, and the mean of both counts. Autovacuum stays as it is.

The ratio at a batch limit is the lower of those with one and with four processes.`,
	N: 500_000, NUsage: "messages consumed while the transaction is open",
	ConcurrencyUsage: "messages handled at a time in each process (default 4 × cores)",
	Duration:         30 * time.Second,
	run:              func(ctx context.Context, l *rig) (Result, error) { return horizonRun{l}.run(ctx) },
}

type horizonResult struct {
	Head
	Consumed   int64         `json:"consumed"`
	Ratio50    float64       `json:"ratio_50"`
	Ratio500   float64       `json:"ratio_500"`
	Cells      []horizonCell `json:"cells"`
	Backlog    int           `json:"backlog"` // of each cell
	DeadTuples int64         `json:"dead_tuples"`
	TableBytes int64         `json:"table_bytes"`
	IndexBytes int64         `json:"index_bytes"`
}

type horizonCell struct {
	BatchLimit int     `json:"batch_limit"`
	Processes  int     `json:"processes"`
	Before     float64 `json:"rate_before"`
	Held       float64 `json:"rate_held"`
	Ratio      float64 `json:"ratio"`

	before, held lab.Series
}

const horizonQueue = "horizon"

// horizonRun is a run of `sqlq bench horizon`.
type horizonRun struct{ *rig }

func (l horizonRun) run(ctx context.Context) (Result, error) {
	if err := l.db.queues(ctx, horizonQueue); err != nil {
		return nil, err
	}
	r := &horizonResult{Backlog: max(1, l.N/5)}
	for _, processes := range []int{1, 4} {
		for _, limit := range []int{50, 500} {
			r.Cells = append(r.Cells, horizonCell{BatchLimit: limit, Processes: processes})
		}
	}
	if err := l.measureFree(ctx, r); err != nil {
		return nil, err
	}
	if err := l.measureHeld(ctx, r); err != nil {
		return nil, err
	}
	if err := l.measureFree(ctx, r); err != nil {
		return nil, err
	}
	lowest := map[int]float64{}
	for i := range r.Cells {
		c := &r.Cells[i]
		c.Before, c.Held = round(c.before.Median(), 0), round(c.held.Median(), 0)
		c.Ratio = ratio(c.Held, c.Before)
		if low, any := lowest[c.BatchLimit]; !any || c.Ratio < low {
			lowest[c.BatchLimit] = c.Ratio
		}
	}
	r.Ratio50, r.Ratio500 = lowest[50], lowest[500]
	return r, nil
}

// measureFree measures each cell with nothing held, on an empty table.
func (l horizonRun) measureFree(ctx context.Context, r *horizonResult) error {
	for i := range r.Cells {
		if err := l.db.empty(ctx, horizonQueue); err != nil {
			return err
		}
		rate, err := l.drain(ctx, &r.Cells[i], r.Backlog)
		if err != nil {
			return err
		}
		r.Cells[i].before = append(r.Cells[i].before, rate)
	}
	return nil
}

// measureHeld measures each cell twice while the horizon is held, once in this and once in the other order.
func (l horizonRun) measureHeld(ctx context.Context, r *horizonResult) error {
	if err := l.db.empty(ctx, horizonQueue); err != nil {
		return err
	}
	release, err := l.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := l.fill(ctx, horizonQueue, l.N); err != nil {
		return err
	}
	receipt, err := l.receivers.receive(ctx, 1, spec{Queues: []string{horizonQueue}, Handler: counting}, int64(l.N))
	if err != nil {
		return err
	}
	r.Consumed = receipt.Handled
	order := []int{0, 1, 2, 3}
	for range 2 {
		for _, i := range order {
			rate, err := l.drain(ctx, &r.Cells[i], r.Backlog)
			if err != nil {
				return err
			}
			r.Cells[i].held = append(r.Cells[i].held, rate)
		}
		slices.Reverse(order)
	}
	if r.TableBytes, r.IndexBytes, err = l.stats.sizes(ctx, horizonQueue); err != nil {
		return err
	}
	r.DeadTuples, err = l.stats.deadTuples(ctx, horizonQueue)
	return err
}

// drain fills the queue and measures how fast a cell's processes empty it.
func (l horizonRun) drain(ctx context.Context, c *horizonCell, n int) (float64, error) {
	if err := l.fill(ctx, horizonQueue, n); err != nil {
		return 0, err
	}
	receipt, err := l.receivers.receive(ctx, c.Processes, spec{Queues: []string{horizonQueue}, Handler: counting, BatchLimit: c.BatchLimit}, int64(n))
	return receipt.rate(), err
}

// hold opens a transaction with an XID and a snapshot, and returns what ends it.
func (l horizonRun) hold(ctx context.Context) (release func(), err error) {
	pool, err := l.db.connect(ctx, 1)
	if err != nil {
		return nil, err
	}
	tx, err := beginHolding(ctx, pool)
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("hold the horizon: %w", err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = tx.Rollback(ctx) // the connection is closed in any case
		pool.Close()
	}, nil
}

func beginHolding(ctx context.Context, pool *pgxpool.Pool) (pgx.Tx, error) {
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', '0', true), txid_current()`)
	return tx, err
}

// Tables implements Result.
func (r *horizonResult) Tables() []Table {
	rates := Table{
		Title: fmt.Sprintf("Backlogs of %s messages of %d bytes, with %s consumed under the open transaction",
			lab.Thousands(int64(r.Backlog)), r.Size, lab.Thousands(r.Consumed)),
		Columns: []string{"", "before", "held", "ratio"},
	}
	for _, c := range r.Cells {
		processes := "one process"
		if c.Processes > 1 {
			processes = fmt.Sprintf("%d processes", c.Processes)
		}
		rates.add(fmt.Sprintf("%d a fetch, %s", c.BatchLimit, processes), perSecond(c.Before), perSecond(c.Held), ratioText(c.Ratio))
	}
	sizes := Table{Title: "At the end of the open transaction", Columns: []string{"", ""}}
	sizes.add("dead tuples", lab.Thousands(r.DeadTuples))
	sizes.add("table", mebibytes(r.TableBytes))
	sizes.add("index", mebibytes(r.IndexBytes))
	return []Table{rates, sizes}
}
