// Opsload measures what an operator waits for on a bad day: three queues with a million messages that wait, and two hundred
// thousand failed ones in forty groups. It starts a throw-away server, fills it, and calls package ops as the command line
// does.
//
//	go run ./internal/bench/opsload -o json
//
// With -filters it looks by every filter that an index serves, as the owner and as roles with row security. Ten million failed
// messages (-failed 10000000 -filters -replay 200000) want 20 GB of disk and some minutes to be made.
//
// It prints the milliseconds of each look, and replays half of the failed messages, interrupted half-way and resumed. It
// exits with 1 if one of them was lost or doubled.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sqlq/sqlq/internal/devpg"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], devpg.Options{Durable: true}, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, server devpg.Options, out, errs io.Writer) int {
	flags := flag.NewFlagSet("opsload", flag.ContinueOnError)
	flags.SetOutput(errs)
	var size size
	flags.IntVar(&size.waiting, "waiting", 1_000_000, "messages that wait in the queues")
	flags.IntVar(&size.failed, "failed", 200_000, "failed messages")
	flags.IntVar(&size.replayed, "replay", 0, "failed messages that are replayed; 0: half of them")
	flags.BoolVar(&size.filters, "filters", false, "look by each filter of failed messages, too, as the owner, an operator and a viewer")
	flags.IntVar(&size.runs, "runs", 7, "how often each look is measured; the median counts")
	format := flags.String("o", "text", "text or json")
	if flags.Parse(args) != nil {
		return 2
	}
	if *format != "text" && *format != "json" {
		fmt.Fprintf(errs, "-o %s: it is text or json\n", *format)
		return 2
	}
	if size.waiting < 0 || size.failed < groups || size.runs < 1 || size.replayed < 0 || size.replayed > size.failed {
		fmt.Fprintf(errs, "-waiting must not be negative, -failed be at least %d, -runs at least 1, -replay not more than -failed\n", groups)
		return 2
	}
	if size.replayed == 0 {
		size.replayed = size.failed / 2
	}
	result, err := measure(ctx, size, server, func(step string) {
		fmt.Fprintf(errs, "%s %s\n", time.Now().Format(time.TimeOnly), step)
	})
	if err != nil {
		fmt.Fprintln(errs, "opsload:", err)
		return 1
	}
	if *format == "json" {
		encoded, err := json.MarshalIndent(result, "", "  ")
		if err != nil {
			fmt.Fprintln(errs, err)
			return 1
		}
		fmt.Fprintf(out, "%s\n", encoded)
	} else {
		result.write(out)
	}
	if result.Replay.Lost > 0 || result.Replay.Doubled > 0 {
		return 1
	}
	return 0
}
