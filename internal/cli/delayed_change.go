package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// delayedChangeOptions are the arguments and flags of the commands that change delayed messages.
type delayedChangeOptions struct {
	change
	names  []string
	filter ops.Filter
	due    ops.Due // when a reschedule makes them due; zero: now
}

// delayedVerb is what a command does to delayed messages.
type delayedVerb struct {
	verb, done string
	final      bool // it cannot be undone
	work       func(ctx context.Context, db *database, o *delayedChangeOptions, opts ops.ChangeOptions) (int64, error)
}

var (
	cancelDelayed     = delayedVerb{verb: "cancel", done: "cancelled", final: true, work: workCancel}
	rescheduleDelayed = delayedVerb{verb: "reschedule", done: "rescheduled", work: workReschedule}
	makeDueNow        = delayedVerb{verb: "make due now", done: "made due", work: workReschedule}
)

func workCancel(ctx context.Context, db *database, o *delayedChangeOptions, opts ops.ChangeOptions) (int64, error) {
	return db.Delayed.Cancel(ctx, o.filter, opts)
}

func workReschedule(ctx context.Context, db *database, o *delayedChangeOptions, opts ops.ChangeOptions) (int64, error) {
	return db.Delayed.Reschedule(ctx, o.filter, o.due, opts)
}

// asks says when the command wants to be told that it shall.
func (v delayedVerb) asks() string {
	if v.final {
		return asksAlways
	}
	return asksOnTerminal
}

func newDelayedCancelCommand(e *env) *cobra.Command {
	return newDelayedChangeCommand(e, cancelDelayed, &delayedChangeOptions{}, &cobra.Command{
		Use:   "cancel [NUMBER|ID]...",
		Short: "Remove delayed messages, for good",
		Long: `Remove delayed messages, for good: they never reach their queues. Messages that are moving to their queues at this
moment are left alone. It asks first; off a terminal it needs --yes. It works in batches: one that was interrupted says how
many it has removed and how to go on.`,
		Example: "  sqlq delayed cancel 0198c0de-7a00-7000-8000-000000000001\n  sqlq delayed cancel --type sales.Remind --body '$.order == 17' --dry-run",
	})
}

func newDelayedRescheduleCommand(e *env) *cobra.Command {
	var o delayedChangeOptions
	c := newDelayedChangeCommand(e, rescheduleDelayed, &o, &cobra.Command{
		Use:   "reschedule [NUMBER|ID]... --at TIME|--in DURATION|--by DURATION",
		Short: "Give delayed messages another due time",
		Long: `Give delayed messages another due time: all the same one with --at or --in, or each a later or earlier one with --by. None
is before now. It works in batches: one that was interrupted says how many have another one and how to go on.`,
		Example: "  sqlq delayed reschedule --queue billing --by +1h\n  sqlq delayed reschedule 17 --at 2026-03-01T09:00",
		PreRunE: func(c *cobra.Command, _ []string) error {
			given := 0
			for _, name := range []string{"at", "in", "by"} {
				if c.Flags().Changed(name) {
					given++
				}
			}
			if given != 1 {
				return errors.New("say when they are to be due: with --at, --in or --by, and one of them only")
			}
			if c.Flags().Changed("by") && o.due.By == 0 {
				return errors.New("--by 0 changes nothing")
			}
			return nil
		},
	})
	c.Flags().Var(instant{&o.due.At}, "at", "due at this time, such as 2026-03-01T15:04 or 2026-03-01T15:04:05Z")
	c.Flags().Var(duration{&o.due.In, false}, "in", "due so long from now, such as 10m or 2d")
	c.Flags().Var(duration{&o.due.By, true}, "by", "due so much later, such as +1h, or earlier, such as -30m")
	return c
}

func newDelayedNowCommand(e *env) *cobra.Command {
	return newDelayedChangeCommand(e, makeDueNow, &delayedChangeOptions{}, &cobra.Command{
		Use:     "now [NUMBER|ID]...",
		Short:   "Make delayed messages due at once",
		Long:    "Make delayed messages due at once: they move to their queues as soon as an endpoint runs, of any queue.",
		Example: "  sqlq delayed now 17 18\n  sqlq delayed now --queue billing --error 'connection refused'",
	})
}

// newDelayedChangeCommand completes a command that changes the delayed messages that its filter chooses.
func newDelayedChangeCommand(e *env, v delayedVerb, o *delayedChangeOptions, c *cobra.Command) *cobra.Command {
	c.RunE = func(c *cobra.Command, names []string) error {
		o.names = names
		return runDelayedChange(c.Context(), e, v, o)
	}
	filterFlags(e, c, &o.filter, delayedMessages)
	c.ValidArgsFunction = several(completeDelayed(e))
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, "at most so many, in the order of --order; 0: all that are chosen")
	c.Flags().BoolVar(&o.filter.All, "all", false, "every delayed message")
	o.flags(c, v.asks())
	o.reasonFlag(c)
	return c
}

func runDelayedChange(ctx context.Context, e *env, v delayedVerb, o *delayedChangeOptions) error {
	if err := chosenBy(ctx, e, &o.filter, o.names); err != nil {
		return err
	}
	switch {
	case o.filter.ChoosesAll() && !o.filter.All:
		return usageErrorf("this would %s every delayed message: name messages, give a filter such as --queue or --type, or --all to mean it", v.verb)
	case !o.filter.ChoosesAll() && o.filter.All:
		return usageErrorf("--all is every delayed message: leave it out, or the names and filters")
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	p := e.progress()
	p.Show("looking for them …")
	preview, err := db.Delayed.PreviewCancel(ctx, o.filter, ops.ChangeOptions{}) // a reschedule chooses the same ones
	p.End()
	if err != nil {
		return err
	}
	n, more, sample := preview.Messages, preview.More, preview.Sample
	if preview.Unnamed != nil {
		err = preview.Unnamed
	}
	if err != nil && n == 0 {
		return nothingDelayed(err, n)
	}
	if n == 0 {
		return errNoneOf(ctx, db, o.filter.Type, "nothing was done: no delayed message fits")
	}
	what := fmt.Sprintf("%s %s", v.verb, atLeast(n, more, "delayed message"))
	if o.dryRun {
		return delayedDryRun(e, what, preview, err)
	}
	if err := confirmDelayed(ctx, e, o.change, v, what+" in schema "+fmt.Sprintf("%q of %s", e.schema, db.where), sample); err != nil {
		return err
	}
	opts := ops.ChangeOptions{Progress: func(at ops.Progress) { p.Show("%s %d, of %d looked at", v.done, at.Done, at.Looked) }}
	if !o.yes { // somebody was asked about those
		opts.UpTo = preview.UpTo
	}
	changed, err := v.work(ctx, db, o, opts)
	p.End()
	if err != nil && changed == 0 {
		return nothingDelayed(err, changed)
	}
	outcome := struct {
		Changed int64 `json:"changed"`
	}{changed}
	return errors.Join(e.done(outcome, "%s %s", v.done, plural(changed, "message")), err)
}

// confirmDelayed shows some of the messages and asks; only what is for good is asked off a terminal, too.
func confirmDelayed(ctx context.Context, e *env, ch change, v delayedVerb, what string, sample []ops.DelayedMessage) error {
	if !v.final && !e.attended() {
		return nil
	}
	if v.final {
		what += ", for good"
	}
	if !ch.yes && e.attended() {
		for _, m := range sample {
			e.say("  %d  due %s  %s  %s", m.Number, dueText(e, m), term.OneLine(m.Queue), term.OneLine(m.Type))
		}
	}
	return e.confirm(ctx, ch, what)
}

func delayedDryRun(e *env, what string, preview ops.DelayedPreview, missing error) error {
	if e.format == formatTable {
		e.say("this would %s, among them:", what)
		return errors.Join(printDelayed(e, preview.Sample), missing)
	}
	return errors.Join(e.printData(preview), missing)
}

// nothingDelayed gives the error of a command that changed nothing, because there is none of what was named, its exit code.
func nothingDelayed(err error, changed int64) error {
	var none *ops.NoDelayedError
	if changed == 0 && errors.As(err, &none) {
		return &codedError{code: exitNothing, err: err}
	}
	return err
}

// atLeast is plural for a count that may have ended early.
func atLeast(n int64, more bool, noun string) string {
	if more {
		return "more than " + plural(n, noun)
	}
	return plural(n, noun)
}
