package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

var idleBenchmark = Benchmark{
	Name:  "idle",
	Short: "What queues cost in which nothing happens",
	Long: `Let one process receive from many queues to which nobody sends, and see what it asks of the database: statements, as
pg_stat_statements counts them, BEGIN and COMMIT among them (transactions where it is missing), connections, and processor
time on either side. The floor is an idle database.`,
	N: 100, NUsage: "queues",
	ConcurrencyUsage: "messages handled at a time in each endpoint (default 4 × cores)",
	Duration:         32 * time.Second, // the net under the wake-ups is a poll every 30 s
	statements:       true,
	run:              func(ctx context.Context, l *rig) (Result, error) { return idleRun{l}.run(ctx) },
}

type idleResult struct {
	Head
	Queues              int      `json:"queues"`
	Seconds             float64  `json:"seconds"` // that were measured
	Counted             string   `json:"counted"` // statements or transactions
	StatementsPerSecond float64  `json:"statements_per_second"`
	FloorPerSecond      float64  `json:"floor_statements_per_second"`
	Connections         int64    `json:"connections"`
	DatabaseCPU         *float64 `json:"database_cpu_ms_per_second"`
	FloorDatabaseCPU    *float64 `json:"floor_database_cpu_ms_per_second"`
	ReceiverCPU         *float64 `json:"receiver_cpu_ms_per_second"`
	PeakRSSMiB          *float64 `json:"peak_rss_mib"`
}

// idleRun is a run of `sqlq bench idle`.
type idleRun struct{ *rig }

func (l idleRun) run(ctx context.Context) (Result, error) {
	r := &idleResult{Queues: max(1, l.N)}
	counts := l.stats.statements(ctx)
	r.Counted = counts.what
	if l.stats.cpu == nil {
		l.note("The server's processes cannot be seen from here, so their processor time is not known.")
	}
	var err error
	l.progress("an idle database")
	_, r.FloorPerSecond, r.FloorDatabaseCPU, err = l.watch(ctx, counts, l.Duration/8)
	if err != nil {
		return nil, err
	}
	var queues []string
	for i := range r.Queues {
		queues = append(queues, fmt.Sprintf("idle%d", i+1))
	}
	if err := l.db.queues(ctx, queues...); err != nil {
		return nil, err
	}
	all, err := l.receivers.employ(ctx, 1, spec{Queues: queues, Handler: idling})
	if err != nil {
		return nil, err
	}
	if err := l.receivers.awaitInstances(ctx, all, len(queues)); err != nil {
		return nil, err
	}
	l.progress("%d queues fall asleep", len(queues))
	if err := lab.Sleep(ctx, l.Duration/8); err != nil {
		return nil, err
	}
	l.progress("%d idle queues", len(queues))
	receiver := all[0].PID()
	before, known := readStat(receiver)
	r.Seconds, r.StatementsPerSecond, r.DatabaseCPU, err = l.watch(ctx, counts, l.Duration)
	if err != nil {
		return nil, err
	}
	if after, ok := readStat(receiver); known && ok {
		v := round(milliseconds(after.used-before.used)/r.Seconds, 2)
		r.ReceiverCPU = &v
	}
	if r.Connections, err = l.stats.sessions(ctx); err != nil {
		return nil, err
	}
	receipt, err := l.receivers.dismiss(ctx, all)
	if err != nil {
		return nil, err
	}
	r.PeakRSSMiB = measured(lab.Series{float64(receipt.PeakMemory) / (1 << 20)}, 1)
	return r, nil
}

// watch looks how many statements a second the database executes for a while, and how many milliseconds of processor
// time a second its server uses.
func (l idleRun) watch(ctx context.Context, counts counter, d time.Duration) (seconds, perSecond float64, cpu *float64, err error) {
	before := l.stats.cpu.read()
	callsBefore, err := counts.count(ctx, l.db.pool)
	if err != nil {
		return 0, 0, nil, err
	}
	began := time.Now()
	if err := lab.SleepUntil(ctx, began.Add(d)); err != nil {
		return 0, 0, nil, err
	}
	callsAfter, err := counts.count(ctx, l.db.pool)
	if err != nil {
		return 0, 0, nil, err
	}
	seconds = time.Since(began).Seconds()
	if l.stats.cpu != nil {
		total, _ := l.stats.cpu.read().since(before, nil)
		v := round(milliseconds(total)/seconds, 2)
		cpu = &v
	}
	return round(seconds, 1), round(float64(callsAfter-callsBefore)/seconds, 2), cpu, nil
}

// Tables implements Result.
func (r *idleResult) Tables() []Table {
	t := Table{
		Title:   fmt.Sprintf("%d idle queues in one process, for %.0f s", r.Queues, r.Seconds),
		Columns: []string{"", "with the queues", "without"},
	}
	perSecond := func(ms *float64) string {
		return orNone(ms, func(ms float64) string { return fmt.Sprintf("%.2f ms", ms) })
	}
	t.add(r.Counted+" a second", fmt.Sprintf("%.2f", r.StatementsPerSecond), fmt.Sprintf("%.2f", r.FloorPerSecond))
	t.add("connections", fmt.Sprint(r.Connections), "0")
	t.add("database: processor time a second", perSecond(r.DatabaseCPU), perSecond(r.FloorDatabaseCPU))
	t.add("receiver: processor time a second", perSecond(r.ReceiverCPU), "")
	t.add("receiver: peak memory", orNone(r.PeakRSSMiB, func(m float64) string { return fmt.Sprintf("%.1f MiB", m) }), "")
	return []Table{t}
}
