// Package bench is `sqlq bench`: what the library does on a database, beside what the same database does without it.
//
// # How it measures
//
// Each benchmark measures its floor in the same run: the least that plain SQL can do for the same outcome, through the
// same driver, with as many connections, on a table of the same make (the floor's table is a queue of its own), with the
// same bodies and the same durability. The two take turns, so that what drifts on the machine drifts under both, and of
// the rounds the median counts. A figure is therefore worth most as a ratio.
//
// Receivers are processes of their own, as they are in production: the program starts itself again (child.go, receive.go).
// So the memory and the connections of a receiver are its alone. Senders run in the process that measures.
//
// # What it leaves
//
// Everything is in the schema sqlq_bench, which is dropped at the end, also after a failure or Ctrl-C (database.go).
//
// # Where things are
//
// A file is a benchmark: send.go, drain.go, poison.go, exactlyonce.go, batch.go, latency.go, slots.go, fairness.go, horizon.go, notify.go,
// scale.go, backlog.go, idle.go. Shared are rig.go (what a run has), database.go (where it takes place), receivers.go, child.go and
// receive.go (receiving processes), message.go (what is sent), server.go (what the server says of itself), cpu.go (what it costs the
// machine), statistics.go and report.go.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Benchmark is one subcommand of `sqlq bench`.
type Benchmark struct {
	Name  string
	Short string
	Long  string

	// Defaults of the options, and what -n and --concurrency mean here. --duration is always how long to measure in all,
	// and --size how long a body is.
	N                int
	NUsage           string
	Concurrency      int
	ConcurrencyUsage string
	Duration         time.Duration
	Delayed          bool // has --delayed
	Guarantees       bool // has --guarantee

	statements bool // counts statements
	run        func(ctx context.Context, l *rig) (Result, error)
}

// All returns the benchmarks, in the order in which a message goes.
func All() []Benchmark {
	return []Benchmark{
		sendBenchmark, drainBenchmark, poisonBenchmark, exactlyOnceBenchmark, batchBenchmark, latencyBenchmark, slotsBenchmark,
		fairnessBenchmark, horizonBenchmark, notifyBenchmark, scaleBenchmark, backlogBenchmark, idleBenchmark,
	}
}

// Options are what the user chose.
type Options struct {
	DatabaseURL string // a libpq URL or key=value; "": start a throw-away server
	Force       bool   // drop a schema sqlq_bench that is there already
	N           int
	Size        int // bytes of a body
	Concurrency int
	Duration    time.Duration
	Delayed     bool
	Guarantee   Guarantee

	// Receiver returns a command that starts this program again as a receiving process, which calls Receive.
	Receiver func() *exec.Cmd
	// Profile begins the names of the files that CPU profiles are written to; "" writes none.
	Profile string
	// Progress gets a line about what goes on, many times a second.
	Progress func(line string)
}

func (o Options) validate() error {
	switch {
	case o.N < 0:
		return fmt.Errorf("-n %d: it must not be negative", o.N)
	case o.Size < minSize || o.Size > maxSize:
		return fmt.Errorf("--size %d: a body has %d to %d bytes here", o.Size, minSize, maxSize)
	case o.Concurrency < 0 || o.Concurrency > 10_000:
		return fmt.Errorf("--concurrency %d: it is from 1 to 10,000", o.Concurrency)
	case o.Guarantee != "" && o.Guarantee != AtLeastOnce && o.Guarantee != AtMostOnce && o.Guarantee != Deduplicate:
		return fmt.Errorf("--guarantee %q: it is %s, %s or %s", o.Guarantee, AtLeastOnce, AtMostOnce, Deduplicate)
	case o.Duration <= 0:
		return fmt.Errorf("--duration %v: it must be more than nothing", o.Duration)
	}
	return nil
}

// Guarantee is how receiving endpoints handle a message.
type Guarantee string

// Guarantees that an endpoint may be asked for.
const (
	AtLeastOnce Guarantee = "at-least-once"
	AtMostOnce  Guarantee = "at-most-once"
	Deduplicate Guarantee = "deduplicate"
)

// ErrOptions is wrapped by errors about Options.
var ErrOptions = errors.New("option out of range")

// Run runs a benchmark and removes what it made. After an interruption the error is context.Canceled.
func Run(ctx context.Context, b Benchmark, o Options) (result Result, err error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	l, err := open(ctx, o, b.statements)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := l.close(); closeErr != nil {
			result, err = nil, errors.Join(err, closeErr)
		}
	}()
	stop, err := l.profile()
	if err != nil {
		return nil, err
	}
	defer stop()
	result, err = b.run(ctx, l)
	if ctx.Err() != nil {
		return nil, ctx.Err() // whatever else failed failed because of it
	}
	if err != nil {
		return nil, fmt.Errorf("bench %s: %w", b.Name, err)
	}
	*result.Common() = Head{
		Benchmark: b.Name, Server: l.facts, N: o.N, Size: o.Size, Concurrency: o.Concurrency,
		DurationSeconds: round(time.Since(l.began).Seconds(), 1), Notes: l.notes,
	}
	return result, nil
}
