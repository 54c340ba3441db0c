package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
)

var batchBenchmark = Benchmark{
	Name:  "batch",
	Short: "Handle messages many at a time in the transaction that removes them",
	Long: `Handle messages with a HandleBatchTx handler that gets up to 500 of them, and inserts a row for each into a table of its own
with one statement: INSERT … SELECT unnest(…).

In the same run, the same rows are inserted one by one by a HandleTx handler. The floor has the rows in hand already: on as many
connections as the receiver has, transactions of 500 messages with the same INSERT and one DELETE of their rows by their keys.
At the end of each round it is checked that each message had its effect once.`,
	N: 100_000, NUsage: "messages handled in a round",
	ConcurrencyUsage: "messages or batches handled at a time (default 4 × cores)",
	Duration:         30 * time.Second,
	run:              func(ctx context.Context, l *rig) (Result, error) { return batchRun{exactlyOnceRun{l}}.run(ctx) },
}

// What the batch handler and its floor do.
const (
	insertEffects = `INSERT INTO ` + schema + `.effect (n, note) SELECT n, $2 FROM unnest($1::bigint[]) n`
	batchMost     = 500
)

type batchResult struct {
	Head
	Messages    int     `json:"messages"`
	Rounds      int     `json:"rounds"`
	Connections int     `json:"connections"`
	Batch       int     `json:"batch"`
	Rate        float64 `json:"rate"`
	SingleRate  float64 `json:"single_rate"`
	Ratio       float64 `json:"ratio"`
	FloorRate   float64 `json:"floor_rate"`
	RatioFloor  float64 `json:"ratio_floor"`
}

// batchRun is a run of `sqlq bench batch`.
type batchRun struct{ exactlyOnceRun }

func (l batchRun) run(ctx context.Context) (Result, error) {
	const queue = "batch"
	if err := l.db.queues(ctx, queue); err != nil {
		return nil, err
	}
	if err := l.makeEffects(ctx); err != nil {
		return nil, err
	}
	r := &batchResult{Messages: l.N, Connections: receiveConnections, Batch: batchMost}
	var batched, single, floor lab.Series
	var err error
	r.Rounds, err = l.rounds(ctx, enoughRounds, func(n int) error {
		return alternate(n,
			l.measure(&batched, n, "HandleBatchTx, INSERT … unnest", func() (float64, error) { return l.handleTx(ctx, queue, insertingMany, l.N) }),
			l.measure(&single, n, "HandleTx, INSERT", func() (float64, error) { return l.handleTx(ctx, queue, inserting, max(1, l.N/3)) }),
			l.measure(&floor, n, "floor, INSERT … unnest", func() (float64, error) { return l.transactions(ctx, insertingMany, l.N, batchMost) }),
		)
	})
	if err != nil {
		return nil, err
	}
	r.Rate, r.SingleRate, r.FloorRate = round(batched.Median(), 0), round(single.Median(), 0), round(floor.Median(), 0)
	r.Ratio, r.RatioFloor = ratio(batched.Median(), single.Median()), ratio(batched.Median(), floor.Median())
	return r, nil
}

// oneBatch does what a batch handler does for messages first, first+1, … whose rows have these seqs: in one round trip, and one for
// the commit.
func oneBatch(ctx context.Context, conn *pgxpool.Conn, first int64, seqs []int64) error {
	ns := make([]int64, len(seqs))
	for i := range ns {
		ns[i] = first + int64(i)
	}
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(insertEffects, ns, effectText)
	b.Queue(`DELETE FROM `+table(floorQueue)+` WHERE seq = ANY ($1)`, seqs)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `COMMIT`)
	return err
}

// Tables implements Result.
func (r *batchResult) Tables() []Table {
	t := Table{
		Title: fmt.Sprintf("Messages of %d bytes, %s a round, %d connections, batches of up to %d; %s",
			r.Size, lab.Thousands(int64(r.Messages)), r.Connections, r.Batch, ofRounds(r.Rounds)),
		Columns: []string{"", "messages", "HandleBatchTx to it"},
	}
	t.add("HandleBatchTx, one INSERT … unnest", perSecond(r.Rate), "")
	t.add("HandleTx, one INSERT each", perSecond(r.SingleRate), ratioText(r.Ratio))
	t.add("floor: one INSERT … unnest and one DELETE", perSecond(r.FloorRate), ratioText(r.RatioFloor))
	return []Table{t}
}
