package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/bench"
	"github.com/sqlq/sqlq/internal/term"
)

func newBenchCommand(e *env) *cobra.Command {
	var subs []*cobra.Command
	for _, b := range bench.All() {
		subs = append(subs, newBenchmarkCommand(e, b))
	}
	c := noun("bench", "Measure sqlq on your database, beside what it does without", append(subs, newBenchReceiverCommand(e))...)
	c.Long = `Measure sqlq beside its floor: the least that plain SQL does for the same outcome, in the same run, through the same driver,
on tables of the same make, with the same bodies and the same durability. The two take turns; medians count.

Without --database-url a throw-away PostgreSQL is started, with fsync on; the environment's database is never taken. On
your own database everything is in the schema sqlq_bench, which is dropped afterwards, also after Ctrl-C. The figures are
of the whole server, whatever else runs on it.`
	return c
}

// benchOptions are the flags of a benchmark.
type benchOptions struct {
	bench.Options
	schemaGiven bool // which is refused
}

func newBenchmarkCommand(e *env, b bench.Benchmark) *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:     b.Name,
		Short:   b.Short,
		Long:    b.Long,
		Example: fmt.Sprintf("  sqlq bench %s\n  sqlq bench %[1]s --database-url postgres://user@host/database -o json", b.Name),
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			o.schemaGiven = c.Flags().Changed("schema")
			return runBenchmark(c.Context(), e, b, &o)
		},
	}
	flags := c.Flags()
	flags.IntVarP(&o.N, "number", "n", b.N, b.NUsage)
	flags.IntVar(&o.Size, "size", 200, "bytes of a body, which is JSON")
	flags.IntVar(&o.Concurrency, "concurrency", b.Concurrency, b.ConcurrencyUsage)
	flags.DurationVar(&o.Duration, "duration", b.Duration, "how long to measure, about; making and filling tables comes on top")
	flags.BoolVar(&o.Force, "force", false, "drop a schema sqlq_bench that is there already, with all that is in it")
	flags.StringVar(&o.Profile, "cpuprofile", "", "write CPU profiles for go tool pprof to files whose names begin so")
	if b.Guarantees {
		flags.StringVar((*string)(&o.Guarantee), "guarantee", string(bench.AtLeastOnce), "what the endpoint promises: at-least-once, at-most-once or deduplicate")
	}
	if b.Delayed {
		flags.BoolVar(&o.Delayed, "delayed", false, "measure instead how late delayed messages are")
	}
	return c
}

func runBenchmark(ctx context.Context, e *env, b bench.Benchmark, o *benchOptions) error {
	if o.schemaGiven {
		return usageErrorf("sqlq bench has a schema of its own, sqlq_bench: leave --schema out")
	}
	if o.DatabaseURL = e.databaseURL; o.DatabaseURL != "" {
		db, err := e.connectAnySchema(ctx) // its errors show no password, and have their exit code
		if err != nil {
			return err
		}
		db.Close()
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start it again: %w", err)
	}
	o.Receiver = func() *exec.Cmd {
		c := exec.Command(self, "bench", receiverCommand)
		c.Args[0] = os.Args[0]
		return c
	}
	if e.errTerminal {
		o.Progress = benchProgress(e)
	}
	result, err := bench.Run(ctx, b, o.Options)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted; what was made is removed")
	case errors.Is(err, bench.ErrOptions):
		return &codedError{code: exitUsage, err: err}
	case err != nil:
		return err
	}
	if e.format != formatTable {
		return e.printData(result)
	}
	return printBenchmark(e, result)
}

func printBenchmark(e *env, result bench.Result) error {
	head := result.Common()
	fmt.Fprintln(e.out, head.Server)
	for _, t := range result.Tables() {
		fmt.Fprintln(e.out)
		if t.Title != "" {
			fmt.Fprintln(e.out, t.Title)
		}
		text := &term.Table{Rows: t.Rows}
		for i, name := range t.Columns {
			text.Columns = append(text.Columns, term.Column{Name: name, Right: i > 0})
		}
		if err := text.Print(e.out, e.width); err != nil {
			return err
		}
	}
	for _, note := range head.Notes {
		fmt.Fprintf(e.out, "\nNote: %s\n", note)
	}
	_, err := fmt.Fprintf(e.out, "\nThis took %.1f s.\n", head.DurationSeconds)
	return err
}

// benchProgress returns what shows a line in place of the last one on the terminal; an empty one wipes it out.
func benchProgress(e *env) func(line string) {
	status := e.progress()
	var shown string
	var at time.Time
	return func(line string) {
		switch {
		case line == "":
			status.End()
		case line == shown, time.Since(at) < 50*time.Millisecond && strings.Contains(line, "handled"):
			return
		default:
			status.Show("%s", line)
		}
		shown, at = line, time.Now()
	}
}

// receiverCommand is for the program itself.
const receiverCommand = "receiver"

func newBenchReceiverCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    receiverCommand,
		Short:  "Be a receiving process of a benchmark",
		Hidden: true,
		Args:   noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return runBenchReceiver(c.Context(), e)
		},
	}
}

func runBenchReceiver(ctx context.Context, e *env) error {
	// Ctrl-C on the terminal reaches this process too. It ends when the one that measures lets it.
	signal.Ignore(os.Interrupt)
	if bench.Receive(context.WithoutCancel(ctx), e.in, e.out) != nil {
		return &codedError{code: exitError} // the other process was told, and says it
	}
	return nil
}
