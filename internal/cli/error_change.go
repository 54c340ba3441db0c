package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

const resumable = `It works in batches and is written down: when it is interrupted it says how much was done, and 'sqlq operation resume' goes on
from there, also after a crash. Messages that fail after it began are left alone.`

// failedVerb is what a command does with failed messages.
type failedVerb struct {
	name, past string
	destroys   bool       // they are lost: it always asks
	of         ops.Status // of those that it is for
	preview    func(ctx context.Context, db *database, o *errorChangeOptions) (ops.Preview, error)
	change     func(ctx context.Context, db *database, o *errorChangeOptions, opts ops.ChangeOptions) (int64, error)
}

var (
	replayFailed = failedVerb{name: "replay", past: "replayed", of: ops.StatusFailed,
		preview: func(ctx context.Context, db *database, o *errorChangeOptions) (ops.Preview, error) {
			return db.Failed.PreviewReplay(ctx, o.filter, o.replay)
		},
		change: func(ctx context.Context, db *database, o *errorChangeOptions, opts ops.ChangeOptions) (int64, error) {
			o.replay.Progress, o.replay.UpTo = opts.Progress, opts.UpTo
			return db.Failed.Replay(ctx, o.filter, o.replay)
		}}
	archiveFailed = failedVerb{name: "archive", past: "archived", of: ops.StatusFailed,
		preview: func(ctx context.Context, db *database, o *errorChangeOptions) (ops.Preview, error) {
			return db.Failed.PreviewArchive(ctx, o.filter, ops.ChangeOptions{})
		},
		change: func(ctx context.Context, db *database, o *errorChangeOptions, opts ops.ChangeOptions) (int64, error) {
			return db.Failed.Archive(ctx, o.filter, opts)
		}}
	unarchiveFailed = failedVerb{name: "unarchive", past: "unarchived", of: ops.StatusArchived,
		preview: func(ctx context.Context, db *database, o *errorChangeOptions) (ops.Preview, error) {
			return db.Failed.PreviewUnarchive(ctx, o.filter, ops.ChangeOptions{})
		},
		change: func(ctx context.Context, db *database, o *errorChangeOptions, opts ops.ChangeOptions) (int64, error) {
			return db.Failed.Unarchive(ctx, o.filter, opts)
		}}
	deleteFailed = failedVerb{name: "delete", past: "deleted", destroys: true, of: ops.StatusAny,
		preview: func(ctx context.Context, db *database, o *errorChangeOptions) (ops.Preview, error) {
			return db.Failed.PreviewDelete(ctx, o.filter, ops.ChangeOptions{})
		},
		change: func(ctx context.Context, db *database, o *errorChangeOptions, opts ops.ChangeOptions) (int64, error) {
			return db.Failed.Delete(ctx, o.filter, opts)
		}}
)

// errorChangeOptions are the arguments and flags of the commands that do something with failed messages.
type errorChangeOptions struct {
	change
	names  []string
	filter ops.Filter
	replay ops.ReplayOptions // of a replay
}

func newErrorReplayCommand(e *env) *cobra.Command {
	var o errorChangeOptions
	c := newErrorChangeCommand(e, replayFailed, &o, &cobra.Command{
		Use:   "replay [NUMBER|ID]...",
		Short: "Move failed messages back to their queues",
		Long: `Move failed messages back to their queues, the oldest first, where they start again at attempt 0. Archived ones are left
alone. Two replays that run at once share the messages: each is replayed once.

` + resumable,
		Example: "  sqlq error replay 17 18\n  sqlq error replay --queue billing --group 5f2ab81c\n  sqlq error replay --type sales.PlaceOrder --since 2h --rate 100/s",
	})
	c.Flags().StringVar(&o.replay.To, "to", "", "replay to this queue, instead of the one that each came from")
	c.Flags().Var(rate{&o.replay.Rate}, "rate", "replay at most so many a second, evenly, such as 100/s")
	_ = c.RegisterFlagCompletionFunc("to", completeQueues(e))
	return c
}

func newErrorArchiveCommand(e *env) *cobra.Command {
	return newErrorChangeCommand(e, archiveFailed, &errorChangeOptions{}, &cobra.Command{
		Use:     "archive [NUMBER|ID]...",
		Short:   "Keep failed messages, but leave them out of lists and replays",
		Long:    "Keep failed messages, but leave them out of lists and replays. 'sqlq error unarchive' takes them back.\n\n" + resumable,
		Example: "  sqlq error archive 17 18\n  sqlq error archive --type sales.PlaceOrder --reason 'orders of the load test'",
	})
}

func newErrorUnarchiveCommand(e *env) *cobra.Command {
	c := newErrorChangeCommand(e, unarchiveFailed, &errorChangeOptions{}, &cobra.Command{
		Use:     "unarchive [NUMBER|ID]...",
		Short:   "Take archived messages back among the failed ones",
		Long:    "Take archived messages back among the failed ones, where they can be replayed.\n\n" + resumable,
		Example: "  sqlq error unarchive 17 18\n  sqlq error unarchive --queue billing --since 7d",
	})
	c.Flags().Lookup("status").DefValue = string(ops.StatusArchived)
	return c
}

func newErrorDeleteCommand(e *env) *cobra.Command {
	return newErrorChangeCommand(e, deleteFailed, &errorChangeOptions{}, &cobra.Command{
		Use:   "delete [NUMBER|ID]...",
		Short: "Remove failed messages for good",
		Long: `Remove failed messages for good: what is left of them is that they were there, in the history of operations. It asks first;
off a terminal it needs --yes. Archived ones are deleted with --status archived, or any.

` + resumable,
		Example: "  sqlq error delete 17\n  sqlq error delete --status archived --until 90d --yes",
	})
}

// newErrorChangeCommand completes a command that does something with the failed messages that a filter chooses.
func newErrorChangeCommand(e *env, v failedVerb, o *errorChangeOptions, c *cobra.Command) *cobra.Command {
	c.RunE = func(c *cobra.Command, names []string) error {
		o.names = names
		return runErrorChange(c.Context(), e, v, o)
	}
	filterFlags(e, c, &o.filter, failedMessages)
	c.ValidArgsFunction = several(completeFailed(e, &o.filter, v.of))
	if v.destroys {
		o.flags(c, asksAlways)
	} else {
		o.flags(c, asksOnTerminal) // where it is all of them
	}
	o.reasonFlag(c)
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, v.name+" at most so many; 0: all that are chosen")
	c.Flags().BoolVar(&o.filter.All, "all", false, v.name+" every failed message")
	return c
}

func runErrorChange(ctx context.Context, e *env, v failedVerb, o *errorChangeOptions) error {
	if err := chosenBy(ctx, e, &o.filter, o.names); err != nil {
		return err
	}
	if err := checkAll(e, v, o); err != nil {
		return err
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	if o.dryRun {
		preview, err := v.preview(ctx, db, o)
		if err != nil {
			return err
		}
		return showPreview(e, v, preview)
	}
	upTo, err := confirmChange(ctx, e, db, v, o)
	if err != nil {
		return err
	}
	return changeFailed(ctx, e, db, v, o, upTo)
}

// checkAll refuses a command line that would change every failed message without saying so, where nobody can be asked.
func checkAll(e *env, v failedVerb, o *errorChangeOptions) error {
	f := &o.filter
	switch {
	case f.ChoosesAll() && !f.All && (o.dryRun || e.attended() && !o.yes):
		f.All = true // what a dry run shows, and confirmChange asks
	case f.ChoosesAll() && !f.All:
		return usageErrorf("this would %s every failed message: name messages, or give --queue, --type or --group, or --all to mean it", v.name)
	case !f.ChoosesAll() && f.All:
		return usageErrorf("--all is every failed message: leave it out, or the names and filters")
	}
	return nil
}

// confirmChange asks before messages are lost, and on a terminal before all of them are changed, and returns what it has asked
// about.
func confirmChange(ctx context.Context, e *env, db *database, v failedVerb, o *errorChangeOptions) (upTo ops.Snapshot, err error) {
	f := o.filter
	all := f.ChoosesAll() && f.Limit == 0
	if o.yes || !v.destroys && !(f.ChoosesAll() && e.attended()) {
		return upTo, nil
	}
	preview, err := v.preview(ctx, db, o)
	if err != nil {
		return upTo, err
	}
	if none(preview) {
		return upTo, nil // the change itself will say why
	}
	what := fmt.Sprintf("%s %s in schema %q of %s", v.name, messages(preview.Messages), e.schema, db.where)
	if all {
		kind := f.Status
		if kind == "" || kind == ops.StatusAny {
			kind = ops.StatusFailed
		}
		what = fmt.Sprintf("%s EVERY %s message, %s, in schema %q of %s", v.name, kind, count(preview.Messages), e.schema, db.where)
	}
	switch {
	case all && v.destroys:
		return preview.UpTo, e.confirmByName(ctx, o.change, what, "delete all")
	case v.destroys:
		what += ", for good"
	}
	return preview.UpTo, e.confirm(ctx, o.change, what)
}

// changeFailed does it, and tells what was done, also when it was interrupted.
func changeFailed(ctx context.Context, e *env, db *database, v failedVerb, o *errorChangeOptions, upTo ops.Snapshot) error {
	line, began := e.progress(), time.Now()
	var operation int64
	changed, err := v.change(ctx, db, o, ops.ChangeOptions{UpTo: upTo, Progress: func(p ops.Progress) {
		operation = p.Operation
		line.Show("%s", progressText(v.past, p, 0, time.Since(began)))
	}})
	line.End()
	var stopped *ops.InterruptedError
	if errors.As(err, &stopped) {
		operation = stopped.Operation
	} else if changed == 0 {
		if err == nil {
			return errNoneOf(ctx, db, o.filter.Type, "no such messages in the error table: nothing was %s", v.past)
		}
		return nothingIfMissing(err)
	}
	outcome := map[string]int64{v.past: changed, "operation": operation}
	return errors.Join(e.done(outcome, "%s %s (operation %d)", v.past, plural(changed, "message"), operation), err)
}

// nothingIfMissing gives an error that says that none of the named messages is there the exit code for that.
func nothingIfMissing(err error) error {
	var none *ops.NoFailedError
	if errors.As(err, &none) {
		return errNothing("%w", err)
	}
	return err
}

// progressText says how far a change is, how fast it goes and how much is left. before is what had been done when it was
// resumed.
func progressText(what string, p ops.Progress, before int64, took time.Duration) string {
	text := fmt.Sprintf("%s %d", what, p.Done)
	if p.Wanted != nil {
		text += fmt.Sprintf(" of %d", *p.Wanted)
	}
	speed := float64(p.Done-before) / max(took.Seconds(), 0.001)
	text += fmt.Sprintf(", %.0f/s", speed)
	switch {
	case p.Wanted == nil && p.UpTo > 0:
		text += fmt.Sprintf(", looked through %d%%", 100*min(p.At, p.UpTo)/p.UpTo)
	case p.Wanted != nil && speed >= 1 && *p.Wanted > p.Done:
		text += ", " + age(time.Duration(float64(*p.Wanted-p.Done)/speed*float64(time.Second))) + " left"
	}
	return text
}

func none(p ops.Preview) bool { return p.Messages == ops.Count{} }

func messages(c ops.Count) string {
	if !c.Estimated {
		return plural(c.N, "failed message")
	}
	return count(c) + " failed messages"
}

// showPreview prints what a command would do.
func showPreview(e *env, v failedVerb, p ops.Preview) error {
	t := &term.Table{Columns: []term.Column{{Name: "number", Right: true}, {Name: "when"}, {Name: "queue", Cut: true}, {Name: "type", Cut: true},
		{Name: "error", Cut: true}, {Name: "group", Spare: 1}}}
	for _, m := range p.Sample {
		t.Add(fmt.Sprint(m.Number), e.when(m.FailedAt), m.Queue, m.Type, m.Error, m.Group)
	}
	if e.format != formatTable {
		if err := e.printData(p); err != nil {
			return err
		}
	} else {
		e.say("would %s %s, as of now; among them:", v.name, messages(p.Messages))
		if err := e.printTable(t); err != nil {
			return err
		}
		if p.Gone != nil {
			e.say("those of queues that are gone would stay: %s", term.OneLine(strings.Join(p.Gone, ", ")))
		}
		if p.Unnamed != nil {
			e.say("%v", p.Unnamed)
		}
	}
	if none(p) {
		return errNothing("no such messages in the error table: nothing would be %s", v.past)
	}
	return nil
}
