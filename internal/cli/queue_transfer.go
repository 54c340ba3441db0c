package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// queueExportOptions are the arguments and flags of `sqlq queue export`.
type queueExportOptions struct {
	queue   string
	filter  ops.Filter
	delayed bool
}

func newQueueExportCommand(e *env) *cobra.Command {
	var o queueExportOptions
	c := &cobra.Command{
		Use:   "export QUEUE > FILE",
		Short: "Write messages as lines of JSON, without taking them",
		Long: `Write the ready messages of a queue to standard output, or those that the flags choose, the oldest first, without taking
them: one a line of JSON, which sqlq queue import reads. With --delayed the queue's delayed messages follow.

A line has id, type, headers, sent_at, expires_at, attempt, body, and of a delayed message due_at, why and error. Bodies come
back byte for byte: one that is not JSON, or has white space between its parts, is base64, and body_encoding says so. On a terminal, characters that it would obey are
escaped.`,
		Example:           "  sqlq queue export sales --delayed > sales.jsonl\n  sqlq queue export sales --type sales.PlaceOrder --since 1h --body '$.amount > 100' > large.jsonl",
		Args:              exactly("QUEUE"),
		ValidArgsFunction: onlyFirst(completeQueues(e)),
		RunE: func(c *cobra.Command, args []string) error {
			o.queue = args[0]
			return runQueueExport(c.Context(), e, &o)
		},
	}
	filterFlags(e, c, &o.filter, readyMessages)
	c.Flags().BoolVar(&o.delayed, "delayed", false, "export the queue's delayed messages too; --since and --until are then due times")
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, "export at most so many; 0: all that are chosen")
	return c
}

func runQueueExport(ctx context.Context, e *env, o *queueExportOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	if e.format != formatTable && e.format != formatJSONL {
		return usageErrorf("-o %s: an export is lines of JSON", e.format)
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	p := e.progress()
	if e.outTerminal {
		p = &term.Status{} // it would stand between the lines
	}
	out, exported := bufio.NewWriterSize(e.out, 64<<10), int64(0)
	var line []byte
	write := func(m ops.Message) (err error) {
		if line, err = ops.AppendLine(line[:0], m); err != nil {
			return err
		}
		exported++
		if e.outTerminal {
			line = escaped(line)
		}
		_, err = out.Write(line)
		return err
	}
	looking := ops.Looking{Progress: func(ops.Progress) { p.Show("exported %d messages", exported) }}
	err = db.Ready.Each(ctx, o.queue, o.filter, looking, write)
	if err == nil && o.delayed && (o.filter.Limit == 0 || exported < int64(o.filter.Limit)) {
		if o.filter.Limit > 0 {
			o.filter.Limit -= int(exported)
		}
		err = db.Delayed.Each(ctx, o.queue, o.filter, looking, write)
	}
	p.End()
	err = errors.Join(err, out.Flush())
	if err != nil && exported == 0 {
		return err
	}
	if exported == 0 {
		return noneFound(ctx, e, db, !o.filter.ChoosesAll(), o.filter.Type, "exported 0 messages")
	}
	e.say("exported %s", plural(exported, "message"))
	return err
}

// queueImportOptions are the arguments and flags of `sqlq queue import`.
type queueImportOptions struct {
	change
	ops.ImportOptions
	queue   string
	file    string // -: standard input
	keepIDs bool
}

func newQueueImportCommand(e *env) *cobra.Command {
	var o queueImportOptions
	c := &cobra.Command{
		Use:   "import QUEUE [FILE]",
		Short: "Store messages that export wrote in a queue",
		Long: `Read lines of JSON from a file, or from standard input, and store them as messages in a queue: what sqlq queue export
wrote, or sqlq error export, whose messages then start again at attempt 0. Delayed messages are delayed again, to their due
time. A line needs a type and a body; the members are those that export's help tells, others are passed over.

It works in batches of up to 1,000 lines, each a transaction that begins when all of its lines were found good. A damaged
line ends it: nothing after the last whole batch is stored, and it says how to go on. With --continue damaged lines are left
out and listed at the end, and the exit code is 1. --dry-run checks all lines and stores nothing. A file that is imported twice
is there twice.`,
		Example: "  sqlq queue import sales sales.jsonl\n  sqlq error export --queue sales | sqlq queue import sales-test --keep-ids=false",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exactly("QUEUE")(c, args)
			}
			return noMoreThan(2)(c, args)
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // a file
			}
			return completeQueues(e)(c, args, begun)
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.queue, o.file = args[0], "-"
			if len(args) == 2 {
				o.file = args[1]
			}
			return runQueueImport(c.Context(), e, &o)
		},
	}
	o.flags(c, asksNever)
	o.reasonFlag(c)
	c.Flags().BoolVar(&o.Continue, "continue", false, "leave damaged lines out, and list them at the end")
	c.Flags().BoolVar(&o.keepIDs, "keep-ids", true, "let messages keep their ids; else each gets a new one")
	c.Flags().Int64Var(&o.Skip, "skip", 0, "pass over so many lines first, to go on where an import ended")
	return c
}

func runQueueImport(ctx context.Context, e *env, o *queueImportOptions) error {
	if o.Skip < 0 {
		return usageErrorf("--skip %d: it takes a number of lines", o.Skip)
	}
	var from io.Reader
	if o.file != "-" {
		file, err := os.Open(o.file)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	} else {
		from = e.reading(ctx, "lines of JSON")
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	p := e.progress()
	o.DryRun, o.NewIDs = o.dryRun, !o.keepIDs
	o.Progress = func(at ops.Progress) { p.Show("imported %d messages", at.Done) }
	done, err := db.Ready.Import(ctx, o.queue, from, o.ImportOptions)
	p.End()
	var none *ops.NoQueueError
	if errors.As(err, &none) {
		return err
	}
	return errors.Join(tellImport(e, o.queue, done, o.ImportOptions), importEnd(e, done, o.ImportOptions, err))
}

// tellImport tells what an import did.
func tellImport(e *env, queue string, done ops.Imported, opts ops.ImportOptions) error {
	outcome := struct {
		Queue string `json:"queue"`
		ops.Imported
		DryRun bool `json:"dry_run,omitempty"`
	}{queue, done, opts.DryRun}
	sentence := "imported %d ready and %d delayed messages to queue %s"
	if opts.DryRun {
		sentence = "would import %d ready and %d delayed messages to queue %s"
	}
	return e.done(outcome, sentence, done.Ready, done.Delayed, queue)
}

// importEnd says how an import ended that did not store all lines, and how to go on.
func importEnd(e *env, done ops.Imported, opts ops.ImportOptions, err error) error {
	if done.LeftOut > 0 {
		e.say("left out %s:", plural(done.LeftOut, "line"))
		for _, line := range done.Damaged {
			e.say("  %s", term.OneLine(line.Error()))
		}
		if more := done.LeftOut - int64(len(done.Damaged)); more > 0 {
			e.say("  and %d more", more)
		}
		if err == nil {
			return &codedError{code: exitError}
		}
	}
	if err == nil || opts.DryRun {
		return err
	}
	if done.UpTo <= opts.Skip {
		return fmt.Errorf("%w\nNothing was imported", err)
	}
	return fmt.Errorf("%w\nLines %d to %d were imported; go on with: --skip %[3]d", err, opts.Skip+1, done.UpTo)
}
