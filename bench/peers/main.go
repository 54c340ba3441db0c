// Command peers measures sqlq against what a team might pick instead: River, gue, Watermill-SQL and, if they are
// available, graphile-worker and RabbitMQ. It measures all of them in one run, interleaved, on one throw-away server with fsync on,
// with the same bodies and through their public APIs.
//
//	go run .                    # about ten minutes; Markdown
//	go run . -short             # a minute, to see that everything works
//	go run . -o json -only sqlq,river
//
// README.md says how each is configured, and why that is fair.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program; what it started ends with it
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0, 1 after a failure, 2 if the arguments are wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	if err := o.parse(args, stderr); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(stderr, "%4.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	r, err := compare(ctx, o, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), say)
	if err == nil {
		err = r.write(stdout, o.output)
	}
	if err == nil {
		err = r.failure()
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		fmt.Fprintln(stderr, "peers:", err)
		return 1
	}
	return 0
}

type options struct {
	size   sizes
	output string // md or json
	only   []string
	npm    bool
}

func (o *options) parse(args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(stderr)
	short := flags.Bool("short", false, "a minute's run of tiny sizes: it shows that everything works, its figures mean little")
	rounds := flags.Int("rounds", 0, "how often each system's turn comes (default 3, with -short 1)")
	n := flags.Int("n", 0, "messages in the backlog that is drained (default 100000, with -short 5000)")
	only := flags.String("only", "", "systems to measure, by their keys in the JSON, comma-separated (default all)")
	flags.StringVar(&o.output, "o", "md", "output: md or json")
	flags.BoolVar(&o.npm, "npm", false, "fetch graphile-worker with npm ci, and measure it too")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.size = defaultSizes
	if *short {
		o.size = shortSizes
	}
	if *rounds != 0 {
		o.size.Rounds = *rounds
	}
	if *n != 0 {
		o.size.Backlog = *n
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	var err error
	switch _, unknown := choose(subjects(), o.only); {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.output != "md" && o.output != "json":
		err = fmt.Errorf("-o %s: it must be md or json", o.output)
	case o.size.Rounds < 1 || o.size.Backlog < 100:
		err = errors.New("-rounds must be at least 1, and -n at least 100")
	default:
		err = unknown
	}
	if err != nil {
		fmt.Fprintln(stderr, "peers:", err)
	}
	return err
}

// compare measures what was asked for, and stops and removes everything that it started.
func compare(ctx context.Context, o options, log *slog.Logger, say func(string, ...any)) (r *report, err error) {
	began := time.Now()
	loadBefore := loadAverage()
	l, err := openRig(ctx, o.size, log, say, o.npm)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	chosen, err := choose(subjects(), o.only)
	if err != nil {
		return nil, err
	}
	present, missing := l.available(ctx, chosen)
	values, failed, err := l.run(ctx, present)
	if err != nil {
		return nil, err
	}
	r = newReport(o.size, present, append(missing, failed...), values)
	r.Server = l.server.Origin()
	r.LoadBefore, r.LoadAfter = loadBefore, loadAverage()
	r.Seconds = time.Since(began).Seconds()
	r.Settings, err = l.settings(ctx)
	return r, err
}

// available divides the subjects into those that can be measured here and the others.
func (l *rig) available(ctx context.Context, all []subject) (present []subject, missing []absent) {
	for _, s := range all {
		if s.available == nil {
			present = append(present, s)
		} else if err := s.available(ctx, l); err == nil {
			present = append(present, s)
		} else {
			missing = append(missing, l.absent(s, err))
		}
	}
	return present, missing
}

func (l *rig) absent(s subject, err error) absent {
	l.say("not measured: %s: %v", s.title, err)
	return absent{Key: s.key, Title: s.title, Why: err.Error(), failed: !errors.Is(err, errNotHere)}
}
