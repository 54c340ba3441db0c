package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
	"github.com/sqlq/sqlq/sqlq"
)

var scaleBenchmark = Benchmark{
	Name:  "scale",
	Short: "What more receiving processes cost the database",
	Long: `Send at a fixed rate to one queue from which 1, 2, 4, 8 and 16 processes receive, and see what a message costs the
database: processor time of all of the server's processes, walwriter and the like included, by the kernel's accounting,
which takes a server on this machine; and statements, where there is pg_stat_statements. Sending is part of both; it is
the same each time. Each number of processes is measured twice, upwards and then downwards, and the mean counts.`,
	N: 2_000, NUsage: "messages a second",
	ConcurrencyUsage: "messages handled at a time in each process (default 4 × cores)",
	Duration:         30 * time.Second,
	statements:       true,
	run:              func(ctx context.Context, l *rig) (Result, error) { return scaleRun{l}.run(ctx) },
}

type scaleResult struct {
	Head
	Rate       int         `json:"wanted_rate"`
	CPURatio16 *float64    `json:"cpu_ratio_16"` // of the processor time at 16 to that at 1; null: unknown
	Counted    string      `json:"counted"`      // statements or transactions
	Steps      []scaleStep `json:"processes"`
}

type scaleStep struct {
	Processes int                `json:"processes"`
	Rate      float64            `json:"rate"`
	CPU       *float64           `json:"cpu_us_per_message"`
	CPUByRole map[string]float64 `json:"cpu_us_per_message_by_role,omitempty"`
	Calls     float64            `json:"statements_per_message"`
	Sessions  int64              `json:"connections"` // of the receiving processes
	P50       float64            `json:"p50_ms"`      // from Send to the handler

	rates, cpu, calls lab.Series
	byRole            map[string]lab.Series
	took              []time.Duration
}

const scaleQueue = "scale"

// scaleRun is a run of `sqlq bench scale`.
type scaleRun struct{ *rig }

func (l scaleRun) run(ctx context.Context) (Result, error) {
	if err := l.db.queues(ctx, scaleQueue); err != nil {
		return nil, err
	}
	counts := l.stats.statements(ctx)
	r := &scaleResult{Rate: max(1, l.N), Counted: counts.what}
	if l.stats.cpu == nil {
		l.note("The server's processes cannot be seen from here, so their processor time is not known.")
	}
	for _, n := range []int{1, 2, 4, 8, 16} {
		r.Steps = append(r.Steps, scaleStep{Processes: n, byRole: map[string]lab.Series{}})
	}
	window := l.Duration / time.Duration(2*len(r.Steps)+2) // the rest is for starting processes
	for pass := range 2 {
		for i := range r.Steps {
			if pass == 1 {
				i = len(r.Steps) - 1 - i
			}
			if err := l.measure(ctx, counts, &r.Steps[i], float64(r.Rate), window); err != nil {
				return nil, err
			}
		}
	}
	for i := range r.Steps {
		r.Steps[i].sum()
	}
	if first, last := r.Steps[0].CPU, r.Steps[len(r.Steps)-1].CPU; first != nil && last != nil {
		v := ratio(*last, *first)
		r.CPURatio16 = &v
	}
	return r, nil
}

// measure measures with a number of processes.
func (l scaleRun) measure(ctx context.Context, counts counter, s *scaleStep, rate float64, window time.Duration) error {
	const perProcess = receiveConnections + 4 // to listen, to keep house, and of the pool
	if free, err := l.stats.capacity(ctx); err != nil || free < int64(s.Processes*perProcess+senders) {
		if err == nil {
			l.note("The server has no connections for %d processes: raise max_connections.", s.Processes)
		}
		return err
	}
	l.progress("%d processes: starting", s.Processes)
	if err := l.db.empty(ctx, scaleQueue); err != nil {
		return err
	}
	all, err := l.receivers.employ(ctx, s.Processes, spec{Queues: []string{scaleQueue}, Handler: counting})
	if err != nil {
		return err
	}
	if err := l.receivers.awaitInstances(ctx, all, s.Processes); err != nil {
		return err
	}
	pool, conns, err := l.db.connectAll(ctx, senders)
	if err != nil {
		return err
	}
	defer pool.Close()
	release(conns)
	client, err := l.db.client(ctx, pool, scaleQueue, sqlq.Config{})
	if err != nil {
		return err
	}
	// Warm up, so that every process has its connections and its statements.
	sent, err := l.sendSteadily(ctx, client, rate, window/3, false)
	if err != nil {
		return err
	}
	l.progress("%d processes: measuring", s.Processes)
	callsBefore, err := counts.count(ctx, l.db.pool)
	if err != nil {
		return err
	}
	before := l.stats.cpu.read()
	began := time.Now()
	n, err := l.sendSteadily(ctx, client, rate, window, true)
	if err != nil {
		return err
	}
	s.rates = append(s.rates, perSecondOf(n, time.Since(began)))
	if err := l.receivers.awaitHandled(ctx, all, sent+n); err != nil {
		return err
	}
	if l.stats.cpu != nil {
		used := l.stats.cpu.read()
		roles, err := l.stats.roles(ctx)
		if err != nil {
			return err
		}
		total, byRole := used.since(before, roles)
		s.cpu = append(s.cpu, float64(total.Microseconds())/float64(n))
		for role, d := range byRole {
			s.byRole[role] = append(s.byRole[role], float64(d.Microseconds())/float64(n))
		}
	}
	callsAfter, err := counts.count(ctx, l.db.pool)
	if err != nil {
		return err
	}
	s.calls = append(s.calls, float64(callsAfter-callsBefore)/float64(n))
	if s.Sessions, err = l.stats.sessions(ctx); err != nil {
		return err
	}
	receipt, err := l.receivers.dismiss(ctx, all)
	s.took = append(s.took, receipt.Took...)
	return err
}

// senders is how many goroutines share a steady rate.
const senders = 4

// sendSteadily sends at a rate for a while, from a few goroutines, and returns how many messages. Timed ones say when
// they were sent.
func (l scaleRun) sendSteadily(ctx context.Context, client *sqlq.Client, rate float64, d time.Duration, timed bool) (int64, error) {
	var counts [senders]int64
	err := lab.InParallel(senders, func(i int) (err error) {
		counts[i], err = pace(ctx, rate/senders, d, func() error {
			at := int64(0)
			if timed {
				at = time.Now().UnixNano()
			}
			return client.Send(ctx, newNote(0, at, l.Size))
		})
		return err
	})
	var sum int64
	for _, n := range counts {
		sum += n
	}
	return sum, err
}

// sum makes the figures of the step from its rounds.
func (s *scaleStep) sum() {
	s.Rate, s.CPU, s.Calls = round(s.rates.Median(), 0), measured(s.cpu, 1), round(s.calls.Median(), 2)
	s.P50 = percentiles(s.took).P50
	for role, each := range s.byRole {
		if us := round(each.Median(), 1); us != 0 {
			if s.CPUByRole == nil {
				s.CPUByRole = map[string]float64{}
			}
			s.CPUByRole[role] = us
		}
	}
}

// Tables implements Result.
func (r *scaleResult) Tables() []Table {
	t := Table{
		Title:   fmt.Sprintf("%s messages of %d bytes a second to one queue", lab.Thousands(int64(r.Rate)), r.Size),
		Columns: []string{"processes", "sent", "database CPU a message", "to one process", r.Counted + " a message", "connections", "p50"},
	}
	for _, s := range r.Steps {
		if s.Rate == 0 {
			continue
		}
		toOne := ""
		if s.CPU != nil && r.Steps[0].CPU != nil {
			toOne = ratioText(ratio(*s.CPU, *r.Steps[0].CPU))
		}
		t.add(fmt.Sprint(s.Processes), perSecond(s.Rate), orNone(s.CPU, microsecondsText), toOne, fmt.Sprintf("%.2f", s.Calls), fmt.Sprint(s.Sessions), millisecondsText(s.P50))
	}
	tables := []Table{t}
	if r.CPURatio16 != nil {
		tables = append(tables, r.roleTable())
	}
	return tables
}

// roleTable says which of the server's processes used the time.
func (r *scaleResult) roleTable() Table {
	t := Table{Title: "Which of the server's processes used it, µs a message", Columns: []string{"process"}}
	var roles []string
	for _, s := range r.Steps {
		t.Columns = append(t.Columns, fmt.Sprint(s.Processes))
		for role := range s.CPUByRole {
			if !slices.Contains(roles, role) {
				roles = append(roles, role)
			}
		}
	}
	slices.SortFunc(roles, strings.Compare)
	for _, role := range roles {
		cells := []string{role}
		for _, s := range r.Steps {
			cells = append(cells, fmt.Sprintf("%.1f", s.CPUByRole[role]))
		}
		t.add(cells...)
	}
	return t
}
