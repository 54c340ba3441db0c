package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

var latencyBenchmark = Benchmark{
	Name:  "latency",
	Short: "Time from the call of Send to the handler",
	Long: `Measure the time from the call of Send in one process to the handler in another: at 500 messages a second, between which
receivers fall asleep, and at half of the rate at which a backlog was drained just before. That load is sent with SendMany,
and 500 messages a second are sent with Send among it and measured.

The floor is one INSERT with NOTIFY on one connection, committed, to WaitForNotification and DELETE … RETURNING of that
row on a connection of another process, also 500 times a second. There as here the message is in hand before its removal
is committed.

With --delayed: how late messages are handled that were sent with At, between 0.2 and 2 s ahead, 100 a second. That is
measured by the server's clock, which decides.`,
	N: 100_000, NUsage: "messages in the backlog that tells the drain rate",
	ConcurrencyUsage: "messages handled at a time (default 4 × cores)",
	Duration:         24 * time.Second,
	Delayed:          true,
	run:              func(ctx context.Context, l *rig) (Result, error) { return latencyRun{l}.run(ctx) },
}

// idleRate is how many messages a second arrive at receivers that have nothing else to do.
const idleRate = 500

type latencyResult struct {
	Head
	Percentiles               // at idleRate
	Floor         Percentiles `json:"floor"`
	RatioP50      float64     `json:"ratio_p50"`
	RatioP99      float64     `json:"ratio_p99"`
	Rounds        int         `json:"rounds"`
	DrainRate     float64     `json:"drain_rate"`
	LoadedTarget  float64     `json:"loaded_target_rate"`
	LoadedRate    float64     `json:"loaded_rate"`
	LoadedBacklog int64       `json:"loaded_backlog"` // of messages when sending ended
	Loaded        Percentiles `json:"loaded"`
}

// latencyRun is a run of `sqlq bench latency`.
type latencyRun struct{ *rig }

func (l latencyRun) run(ctx context.Context) (Result, error) {
	const queue = "latency"
	if err := l.db.queues(ctx, queue); err != nil {
		return nil, err
	}
	if l.Delayed {
		return l.measureDelayed(ctx, queue)
	}
	r := &latencyResult{Rounds: 4}
	window := l.Duration / time.Duration(2*r.Rounds+2) // the loaded one is twice as long
	var ours, floor []time.Duration
	for n := range r.Rounds {
		err := alternate(n, func() error {
			l.progress("round %d of %d: Send, %d a second", n+1, r.Rounds, idleRate)
			took, err := l.sendPaced(ctx, queue, window)
			ours = append(ours, took...)
			return err
		}, func() error {
			l.progress("round %d of %d: floor, INSERT and NOTIFY, %d a second", n+1, r.Rounds, idleRate)
			took, err := l.notifyPaced(ctx, window)
			floor = append(floor, took...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	r.Percentiles, r.Floor = percentiles(ours), percentiles(floor)
	r.RatioP50, r.RatioP99 = ratio(r.P50, r.Floor.P50), ratio(r.P99, r.Floor.P99)
	return r, l.sendLoaded(ctx, queue, 2*window, r)
}

// prober is a sender of messages whose way is timed.
type prober struct {
	rig    *rig
	pool   *pgxpool.Pool
	client *sqlq.Client
	crew   crew
	sent   int64
}

// probe starts a receiving process and a sender, and sends a few messages that do not count, so that both are warm.
func (l latencyRun) probe(ctx context.Context, queue string) (p *prober, err error) {
	if err := l.db.empty(ctx, queue); err != nil {
		return nil, err
	}
	p = &prober{rig: l.rig}
	if p.crew, err = l.receivers.employ(ctx, 1, spec{Queues: []string{queue}, Handler: counting}); err != nil {
		return nil, err
	}
	if p.pool, err = l.db.connect(ctx, 4); err != nil {
		return nil, err
	}
	if p.client, err = l.db.client(ctx, p.pool, queue, sqlq.Config{}); err != nil {
		p.pool.Close()
		return nil, err
	}
	for range 50 {
		if err := errors.Join(p.send(ctx, 0), lab.Sleep(ctx, 2*time.Millisecond)); err != nil {
			p.pool.Close()
			return nil, err
		}
	}
	return p, nil
}

func (p *prober) send(ctx context.Context, at int64, options ...sqlq.SendOption) error {
	p.sent++
	return p.client.Send(ctx, newNote(p.sent, at, p.rig.Size), options...)
}

// end waits until everything has arrived, and returns how long it took.
func (p *prober) end(ctx context.Context) ([]time.Duration, error) {
	defer p.pool.Close()
	if err := p.rig.receivers.awaitHandled(ctx, p.crew, p.sent); err != nil {
		return nil, err
	}
	receipt, err := p.rig.receivers.dismiss(ctx, p.crew)
	return receipt.Took, err
}

// sendPaced measures the library at a steady rate.
func (l latencyRun) sendPaced(ctx context.Context, queue string, window time.Duration) ([]time.Duration, error) {
	p, err := l.probe(ctx, queue)
	if err != nil {
		return nil, err
	}
	defer p.pool.Close()
	_, err = pace(ctx, idleRate, window, func() error { return p.send(ctx, time.Now().UnixNano()) })
	if err != nil {
		return nil, err
	}
	return p.end(ctx)
}

// notifyPaced measures the floor at the same rate.
func (l latencyRun) notifyPaced(ctx context.Context, window time.Duration) ([]time.Duration, error) {
	const channel = schema + "_floor"
	if err := l.db.empty(ctx, floorQueue); err != nil {
		return nil, err
	}
	all, err := l.receivers.hire(ctx, 1, spec{Handler: floorReceive, Channel: channel})
	if err != nil {
		return nil, err
	}
	ready := all.said()
	all.begin()
	if err := all.await(ctx, func() bool { return all.said() > ready }, "the floor's receiver does not listen"); err != nil {
		return nil, err
	}
	pool, conns, err := l.db.connectAll(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	defer release(conns)
	sent := int64(0)
	send := func(at int64) error {
		sent++
		// One statement, committed by itself.
		_, err := conns[0].Exec(ctx, `
			WITH stored AS (
				INSERT INTO `+table(floorQueue)+` (id, type, headers, body) VALUES ($1::uuid, $2, NULL, $3::bytea) RETURNING seq
			)
			SELECT pg_notify($4, seq::text) FROM stored`, sqlq.NewID(), noteType, newNote(sent, at, l.Size).body(), channel)
		return err
	}
	for range 50 {
		if err := errors.Join(send(0), lab.Sleep(ctx, 2*time.Millisecond)); err != nil {
			return nil, err
		}
	}
	if _, err := pace(ctx, idleRate, window, func() error { return send(time.Now().UnixNano()) }); err != nil {
		return nil, err
	}
	if err := l.receivers.awaitHandled(ctx, all, sent); err != nil {
		return nil, err
	}
	receipt, err := l.receivers.dismiss(ctx, all)
	return receipt.Took, err
}

// sendLoaded measures the library at half of the rate at which it drains a backlog here and now.
func (l latencyRun) sendLoaded(ctx context.Context, queue string, window time.Duration, r *latencyResult) error {
	if err := l.db.empty(ctx, queue); err != nil {
		return err
	}
	if err := l.fill(ctx, queue, l.N); err != nil {
		return err
	}
	drained, err := l.receivers.receive(ctx, 1, spec{Queues: []string{queue}, Handler: counting}, int64(l.N))
	if err != nil {
		return err
	}
	r.DrainRate = round(drained.rate(), 0)
	r.LoadedTarget = round(r.DrainRate/2, 0)
	l.progress("Send among %s messages a second", lab.Thousands(int64(r.LoadedTarget)))

	p, err := l.probe(ctx, queue)
	if err != nil {
		return err
	}
	defer p.pool.Close()
	var load int64
	loaded := make(chan error, 1)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		var err error
		load, err = l.load(loading, p.client, r.LoadedTarget, window)
		loaded <- err
	}()
	before, began := p.sent, time.Now()
	_, err = pace(ctx, idleRate, window, func() error { return p.send(ctx, time.Now().UnixNano()) })
	if err != nil {
		stop()
	}
	if err := errors.Join(err, <-loaded); err != nil {
		return err
	}
	r.LoadedRate = round(perSecondOf(load+p.sent-before, time.Since(began)), 0)
	r.LoadedBacklog = max(0, load+p.sent-p.crew.handled())
	p.sent += load
	took, err := p.end(ctx)
	r.Loaded = percentiles(took)
	if r.LoadedRate < 0.95*r.LoadedTarget {
		l.note("Sender, receiver and server together did not manage half of the drain rate.")
	}
	return err
}

// load sends so many messages a second, in portions of 5 ms, and returns how many it sent.
func (l latencyRun) load(ctx context.Context, client *sqlq.Client, perSecond float64, d time.Duration) (sent int64, err error) {
	const every = 5 * time.Millisecond
	portion := notes(0, max(1, int(perSecond*every.Seconds())), l.Size)
	began := time.Now()
	for next := began; next.Sub(began) < d; next = next.Add(every) {
		if err := lab.SleepUntil(ctx, next); err != nil {
			return sent, err
		}
		if time.Since(began) > d {
			break // it does not keep up
		}
		if err := client.SendMany(ctx, portion); err != nil {
			return sent, err
		}
		sent += int64(len(portion))
	}
	return sent, nil
}

// Tables implements Result.
func (r *latencyResult) Tables() []Table {
	t := Table{
		Title:   fmt.Sprintf("From Send to the handler, messages of %d bytes", r.Size),
		Columns: []string{"", "p50", "p95", "p99", "max"},
	}
	row := func(name string, p Percentiles) { t.add(append([]string{name}, p.cells()...)...) }
	row(fmt.Sprintf("%d/s, idle receivers", idleRate), r.Percentiles)
	row(fmt.Sprintf("floor, %d/s: NOTIFY, DELETE", idleRate), r.Floor)
	t.add("ratio", ratioText(r.RatioP50), "", ratioText(r.RatioP99), "")
	row(perSecond(r.LoadedRate)+" under way", r.Loaded)
	load := Table{Title: "The load", Columns: []string{"", ""}}
	load.add("drain rate", perSecond(r.DrainRate))
	load.add("half of it was wanted", perSecond(r.LoadedTarget))
	load.add("sent", perSecond(r.LoadedRate))
	load.add("backlog when sending ended", lab.Thousands(r.LoadedBacklog))
	return []Table{t, load}
}

type delayedResult struct {
	Head
	Lateness    Percentiles `json:"lateness"`
	LatenessP50 float64     `json:"lateness_p50_ms"`
	ClockOffset float64     `json:"clock_offset_ms"` // how far the server's clock is ahead
}

// measureDelayed measures how late delayed messages are.
func (l latencyRun) measureDelayed(ctx context.Context, queue string) (Result, error) {
	const perSecond, atLeast, atMost = 100, 200 * time.Millisecond, 2 * time.Second
	offset, err := l.stats.clockOffset(ctx)
	if err != nil {
		return nil, err
	}
	p, err := l.probe(ctx, queue)
	if err != nil {
		return nil, err
	}
	defer p.pool.Close()
	l.progress("Send with At, %d a second", perSecond)
	_, err = pace(ctx, perSecond, max(l.Duration/2, l.Duration-atMost), func() error {
		due := time.Now().Add(atLeast + rand.N(atMost-atLeast))
		return p.send(ctx, due.UnixNano(), sqlq.At(due.Add(offset)))
	})
	if err != nil {
		return nil, err
	}
	took, err := p.end(ctx)
	if err != nil {
		return nil, err
	}
	r := &delayedResult{Lateness: percentiles(took), ClockOffset: milliseconds(offset)}
	r.LatenessP50 = r.Lateness.P50
	return r, nil
}

// Tables implements Result.
func (r *delayedResult) Tables() []Table {
	t := Table{
		Title:   fmt.Sprintf("How late %s delayed messages were handled", lab.Thousands(int64(r.Lateness.Count))),
		Columns: []string{"", "min", "p50", "p95", "p99", "max"},
	}
	t.add(append([]string{"after their time", millisecondsText(r.Lateness.Min)}, r.Lateness.cells()...)...)
	return []Table{t}
}
