// Torture proves sqlq under faults: see package trial.
//
//	go run ./internal/torture -duration 5m -seed 1 -o json
//
// It exits with 1 if anything was lost, doubled or not accounted for.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/sqlq/sqlq/internal/torture/failover"
	"github.com/sqlq/sqlq/internal/torture/trial"
)

func main() {
	trial.BeChild()
	failover.BeChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.SetOutput(errs)
	var o trial.Options
	flags.DurationVar(&o.Duration, "duration", 5*time.Minute, "how long there are faults; draining comes on top")
	flags.Uint64Var(&o.Seed, "seed", 1, "decides on the faults, and on what messages do")
	flags.StringVar(&o.Scenario, "scenario", trial.Mixed, "mixed, poison (messages that kill, hang and break their handlers), calm (no faults), failover (which takes its own time) or endpoints (200 that come and go in one process)")
	flags.IntVar(&o.Rate, "rate", 0, "messages a second that are sent (0: the default)")
	flags.DurationVar(&o.Skew, "skew", 0, "by how much the server's clock is ahead of the processes' (takes libfaketime; -5h: behind)")
	short := flags.Bool("short", false, "the same as -duration 20s")
	format := flags.String("o", "text", "text or json")
	journal := flags.String("journal", "", "file that gets what the processes log")
	if flags.Parse(args) != nil {
		return 2
	}
	if *format != "text" && *format != "json" {
		fmt.Fprintf(errs, "-o %s: it is text or json\n", *format)
		return 2
	}
	switch o.Scenario {
	case trial.Mixed, trial.Poison, trial.Calm, failoverScenario, endpointsScenario:
	default:
		fmt.Fprintf(errs, "-scenario %s: it is %s, %s, %s, %s or %s\n", o.Scenario, trial.Mixed, trial.Poison, trial.Calm, failoverScenario, endpointsScenario)
		return 2
	}
	if *short {
		o.Duration = 20 * time.Second
	}
	if *journal != "" {
		f, err := os.Create(*journal)
		if err != nil {
			fmt.Fprintln(errs, err)
			return 2
		}
		defer f.Close()
		o.Journal = f
	}
	if o.Scenario == endpointsScenario {
		return runEndpoints(ctx, o.Duration, o.Rate, o.Seed, *format, out, errs)
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(errs, err)
		return 2
	}
	if o.Scenario == failoverScenario {
		return runFailover(ctx, o.Rate, self, *format, out, errs)
	}
	o.Command = func() *exec.Cmd { return exec.Command(self) }
	o.Log = errs
	result, err := trial.Run(ctx, o)
	if err != nil {
		fmt.Fprintln(errs, "torture:", err)
		return 1
	}
	return report(result, *format, out, errs)
}

func report(r *trial.Result, format string, out, errs io.Writer) int {
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	wrong := r.Wrong()
	if format == "json" {
		fmt.Fprintf(out, "%s\n", encoded)
	} else {
		fmt.Fprintf(out, "%d messages under %d kinds of faults in %v s (seed %d): %d lost, %d double effects, %d unaccounted for, %d repeated, %d failed\n",
			r.Messages, len(r.Faults), r.Duration, r.Seed, r.Lost, r.DoubleEffects, r.Unaccounted, r.Repeated, r.Failed)
	}
	if len(wrong) == 0 {
		return 0
	}
	for _, w := range wrong {
		fmt.Fprintln(errs, "wrong:", w)
	}
	fmt.Fprint(errs, r.Timeline)
	return 1
}
