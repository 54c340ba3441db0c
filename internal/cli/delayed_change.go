package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newDelayedCancelCommand(e *env) *cobra.Command {
	return newDelayedChangeCommand(e, delayedVerb{verb: "cancel", done: "cancelled", final: true}, &cobra.Command{
		Use:   "cancel [NUMBER|ID]...",
		Short: "Remove delayed messages, for good",
		Long: `Remove delayed messages, for good: they never reach their queues. Messages that are moving to their queues at this
moment are left alone. It asks first; off a terminal it needs --yes. It works in batches: one that was interrupted says how
many it has removed and how to go on.`,
		Example: "  sqlq delayed cancel 0198c0de-7a00-7000-8000-000000000001\n  sqlq delayed cancel --type sales.Remind --body '$.order == 17' --dry-run",
	}, func(ctx context.Context, db *database, f ops.Filter, o ops.ChangeOptions) (int64, error) {
		return db.Delayed.Cancel(ctx, f, o)
	})
}

func newDelayedRescheduleCommand(e *env) *cobra.Command {
	var to ops.Due
	c := newDelayedChangeCommand(e, delayedVerb{verb: "reschedule", done: "rescheduled"}, &cobra.Command{
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
			if c.Flags().Changed("by") && to.By == 0 {
				return errors.New("--by 0 changes nothing")
			}
			return nil
		},
	}, func(ctx context.Context, db *database, f ops.Filter, o ops.ChangeOptions) (int64, error) {
		return db.Delayed.Reschedule(ctx, f, to, o)
	})
	c.Flags().Var(instant{&to.At}, "at", "due at this time, such as 2026-03-01T15:04 or 2026-03-01T15:04:05Z")
	c.Flags().Var(duration{&to.In, false}, "in", "due so long from now, such as 10m or 2d")
	c.Flags().Var(duration{&to.By, true}, "by", "due so much later, such as +1h, or earlier, such as -30m")
	return c
}

func newDelayedNowCommand(e *env) *cobra.Command {
	return newDelayedChangeCommand(e, delayedVerb{verb: "make due now", done: "made due"}, &cobra.Command{
		Use:     "now [NUMBER|ID]...",
		Short:   "Make delayed messages due at once",
		Long:    "Make delayed messages due at once: they move to their queues as soon as an endpoint runs, of any queue.",
		Example: "  sqlq delayed now 17 18\n  sqlq delayed now --queue billing --error 'connection refused'",
	}, func(ctx context.Context, db *database, f ops.Filter, o ops.ChangeOptions) (int64, error) {
		return db.Delayed.Reschedule(ctx, f, ops.Due{}, o)
	})
}

// delayedVerb is what a command does to delayed messages, in words.
type delayedVerb struct {
	verb, done string
	final      bool // it cannot be undone
}

func (v delayedVerb) asks() string {
	if v.final {
		return asksAlways
	}
	return asksOnTerminal
}

// newDelayedChangeCommand completes a command that changes the delayed messages that its filter chooses.
func newDelayedChangeCommand(e *env, v delayedVerb, c *cobra.Command, work func(context.Context, *database, ops.Filter, ops.ChangeOptions) (int64, error)) *cobra.Command {
	var f ops.Filter
	var ch change
	c.RunE = func(c *cobra.Command, names []string) error {
		if err := chosenBy(c.Context(), e, &f, names); err != nil {
			return err
		}
		switch {
		case f.ChoosesAll() && !f.All:
			return usageErrorf("this would %s every delayed message: name messages, give a filter such as --queue or --type, or --all to mean it", v.verb)
		case !f.ChoosesAll() && f.All:
			return usageErrorf("--all is every delayed message: leave it out, or the names and filters")
		}
		db, err := e.connectToChange(c.Context(), ch)
		if err != nil {
			return err
		}
		defer db.Close()
		p := e.progress()
		p.Show("looking for them …")
		preview, err := db.Delayed.PreviewCancel(c.Context(), f, ops.ChangeOptions{}) // a reschedule chooses the same ones
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
			return errNoneOf(c.Context(), db, f.Type, "nothing was done: no delayed message fits")
		}
		what := fmt.Sprintf("%s %s", v.verb, atLeast(n, more, "delayed message"))
		if ch.dryRun {
			return delayedDryRun(e, what, preview, err)
		}
		if err := confirmDelayed(c.Context(), e, ch, v, what+" in schema "+fmt.Sprintf("%q of %s", e.schema, db.where), sample); err != nil {
			return err
		}
		opts := ops.ChangeOptions{Progress: func(at ops.Progress) { p.Show("%s %d, of %d looked at", v.done, at.Done, at.Looked) }}
		if !ch.yes { // somebody was asked about those
			opts.UpTo = preview.UpTo
		}
		changed, err := work(c.Context(), db, f, opts)
		p.End()
		if err != nil && changed == 0 {
			return nothingDelayed(err, changed)
		}
		outcome := struct {
			Changed int64 `json:"changed"`
		}{changed}
		return errors.Join(e.done(outcome, "%s %s", v.done, plural(changed, "message")), err)
	}
	filterFlags(e, c, &f, delayedMessages)
	c.ValidArgsFunction = several(completeDelayed(e))
	c.Flags().IntVarP(&f.Limit, "limit", "n", 0, "at most so many, in the order of --order; 0: all that are chosen")
	c.Flags().BoolVar(&f.All, "all", false, "every delayed message")
	ch.flags(c, v.asks())
	ch.reasonFlag(c)
	return c
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
