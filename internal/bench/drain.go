package bench

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

var drainBenchmark = Benchmark{
	Name:  "drain",
	Short: "Handle a backlog as fast as possible",
	Long: `Handle a backlog with a handler that decodes its message and does nothing else.

The floor is one DELETE … RETURNING of as many equal rows on one connection, read to the end by the client: every
column into Go's types, the body undecoded.

WAL is counted from before the first SendMany to after the last settle, for the whole server. A checkpoint is made before
each round, and none should come in between: then nearly all pages are new, and the WAL has next to no full-page images,
as where messages live for a short time. Vacuum comes later, and is not in it.

With --guarantee at-most-once or deduplicate the endpoint has Endpoint.AtMostOnce, or Endpoint.Deduplicate with an hour.`,
	N: 200_000, NUsage: "messages in the backlog",
	ConcurrencyUsage: "messages handled at a time (default 4 × cores)",
	Duration:         30 * time.Second,
	Guarantees:       true,
	run:              func(ctx context.Context, l *rig) (Result, error) { return drainRun{l}.run(ctx) },
}

type drainResult struct {
	Head
	Guarantee          Guarantee `json:"guarantee"`
	Messages           int       `json:"messages"`
	Rounds             int       `json:"rounds"`
	Rate               float64   `json:"rate"`
	FloorRate          float64   `json:"floor_rate"`
	Ratio              float64   `json:"ratio"`
	WALBytesPerMessage float64   `json:"wal_bytes_per_message"`
	WALBytesSend       float64   `json:"wal_bytes_per_message_send"`
	WALBytesReceive    float64   `json:"wal_bytes_per_message_receive"`
	FullPageImages     int64     `json:"full_page_images"`
	DeadTuples         int64     `json:"dead_tuples"`
	PeakRSSMiB         *float64  `json:"peak_rss_mib"`
	CPUPerMessage      *float64  `json:"receiver_cpu_us_per_message"`
	DatabaseCPU        *float64  `json:"database_cpu_us_per_message"` // of receiving
	Connections        int64     `json:"connections"`
}

// drainRound is what one round found.
type drainRound struct {
	receipt     receipts
	databaseCPU time.Duration
	floor       float64 // rate
	send        int64   // bytes of WAL
	receive     int64   // likewise
	images      int64
	connections int64
}

// drainRun is a run of `sqlq bench drain`.
type drainRun struct{ *rig }

func (l drainRun) run(ctx context.Context) (Result, error) {
	const queue = "drain"
	r := &drainResult{Messages: l.N, Guarantee: cmp.Or(l.Guarantee, AtLeastOnce)}
	if err := l.db.queues(ctx, queue); err != nil {
		return nil, err
	}
	var rates, floors, sends, receives, images, memory, cpu, databaseCPU lab.Series
	var err error
	r.Rounds, err = l.rounds(ctx, enoughRounds, func(n int) error {
		d, err := l.round(ctx, queue, n)
		if err != nil {
			return err
		}
		rates, floors = append(rates, d.receipt.rate()), append(floors, d.floor)
		each := func(total float64) float64 { return total / float64(l.N) }
		sends, receives = append(sends, each(float64(d.send))), append(receives, each(float64(d.receive)))
		images = append(images, float64(d.images))
		memory = append(memory, float64(d.receipt.PeakMemory)/(1<<20))
		cpu = append(cpu, each(float64(d.receipt.CPU.Nanoseconds())/1000))
		databaseCPU = append(databaseCPU, each(float64(d.databaseCPU.Nanoseconds())/1000))
		r.Connections = max(r.Connections, d.connections)
		r.DeadTuples, err = l.stats.deadTuples(ctx, queue)
		return err
	})
	if err != nil {
		return nil, err
	}
	r.Rate, r.FloorRate = round(rates.Median(), 0), round(floors.Median(), 0)
	r.Ratio = ratio(rates.Median(), floors.Median())
	r.WALBytesSend, r.WALBytesReceive = round(sends.Median(), 1), round(receives.Median(), 1)
	r.WALBytesPerMessage = round(r.WALBytesSend+r.WALBytesReceive, 1)
	r.FullPageImages = int64(images.Median())
	r.PeakRSSMiB, r.CPUPerMessage, r.DatabaseCPU = measured(memory, 1), measured(cpu, 2), measured(databaseCPU, 2)
	return r, nil
}

// round fills both tables and empties them, in turn the one or the other first.
func (l drainRun) round(ctx context.Context, queue string, n int) (d drainRound, err error) {
	if err := l.db.empty(ctx, queue, floorQueue); err != nil {
		return d, err
	}
	if err := l.db.checkpoint(ctx); err != nil {
		return d, err
	}
	sent := walSpan{pool: l.db.pool}
	if err := sent.of(ctx, func() error { return l.fill(ctx, queue, l.N) }); err != nil {
		return d, err
	}
	if err := l.db.copyQueue(ctx, queue, floorQueue); err != nil {
		return d, err
	}
	received := walSpan{pool: l.db.pool}
	err = alternate(n, func() error {
		return received.of(ctx, func() error {
			before := l.stats.cpu.read()
			var err error
			d.receipt, d.connections, err = l.drain(ctx, queue)
			d.databaseCPU, _ = l.stats.cpu.read().since(before, nil)
			return err
		})
	}, func() error {
		var err error
		d.floor, err = l.deleteReturning(ctx, l.N)
		return err
	})
	d.send, d.receive, d.images = sent.bytes, received.bytes, sent.images+received.images
	return d, err
}

// drain has one process handle what is in a queue, sees that all of it was, and counts the process's connections.
func (l drainRun) drain(ctx context.Context, queue string) (r receipts, connections int64, err error) {
	all, err := l.receivers.employ(ctx, 1, spec{Queues: []string{queue}, Handler: counting, Guarantee: l.Guarantee})
	if err != nil {
		return r, 0, err
	}
	if err := l.receivers.awaitHandled(ctx, all, int64(l.N)); err != nil {
		return r, 0, err
	}
	if connections, err = l.stats.sessions(ctx); err != nil {
		return r, 0, err
	}
	if r, err = l.receivers.dismiss(ctx, all); err != nil {
		return r, 0, err
	}
	left, err := l.db.holds(ctx, table(queue))
	if err == nil && (left > 0 || r.Handled != int64(l.N)) {
		err = fmt.Errorf("of %d messages %d were handled and %d are left", l.N, r.Handled, left)
	}
	return r, connections, err
}

// deleteReturning deletes the rows of the floor's table, and returns how many a second the client had read.
func (l drainRun) deleteReturning(ctx context.Context, n int) (rate float64, err error) {
	l.progress("floor: one DELETE … RETURNING")
	pool, conns, err := l.db.connectAll(ctx, 1)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	defer release(conns)
	began := time.Now()
	rows, err := conns[0].Query(ctx, `DELETE FROM `+table(floorQueue)+` RETURNING seq, id, sent_at, expires_at, attempt, type, headers, body`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var m struct {
		seq           int64
		id            [16]byte
		sentAt        time.Time
		expiresAt     *time.Time
		attempt       int
		typ           string
		headers, body []byte
	}
	targets := []any{&m.seq, &m.id, &m.sentAt, &m.expiresAt, &m.attempt, &m.typ, &m.headers, &m.body}
	got := 0
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return 0, err
		}
		got++
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	if got != n {
		return 0, fmt.Errorf("the floor deleted %d rows of %d", got, n)
	}
	return perSecondOf(int64(n), time.Since(began)), nil
}

// measured returns the median of what the system says, nil where it says nothing.
func measured(s lab.Series, digits int) *float64 {
	m := round(s.Median(), digits)
	if m == 0 {
		return nil
	}
	return &m
}

// Tables implements Result.
func (r *drainResult) Tables() []Table {
	speed := Table{
		Title:   fmt.Sprintf("A backlog of %s messages of %d bytes, one receiving process; %s", lab.Thousands(int64(r.Messages)), r.Size, ofRounds(r.Rounds)),
		Columns: []string{"", "messages", "of the floor"},
	}
	speed.add("received, decoded, handled, settled", perSecond(r.Rate), ratioText(r.Ratio))
	speed.add("floor: one DELETE … RETURNING", perSecond(r.FloorRate), ratioText(1))
	costs := Table{Title: "What it costs", Columns: []string{"", ""}}
	costs.add("WAL from send to settle, a message", fmt.Sprintf("%.0f bytes", r.WALBytesPerMessage))
	costs.add("  of that SendMany", fmt.Sprintf("%.0f bytes", r.WALBytesSend))
	costs.add("  of that receiving", fmt.Sprintf("%.0f bytes", r.WALBytesReceive))
	costs.add("full-page images in it", lab.Thousands(r.FullPageImages))
	costs.add("dead tuples afterwards", lab.Thousands(r.DeadTuples))
	costs.add("receiver: peak memory", orNone(r.PeakRSSMiB, func(m float64) string { return fmt.Sprintf("%.1f MiB", m) }))
	costs.add("receiver: processor time, a message", orNone(r.CPUPerMessage, microsecondsText))
	costs.add("database: processor time, a message", orNone(r.DatabaseCPU, microsecondsText))
	costs.add("receiver: connections", fmt.Sprint(r.Connections))
	return []Table{speed, costs}
}
