package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// queueMoveOptions are the arguments and flags of `sqlq queue move`.
type queueMoveOptions struct {
	change
	ops.ChangeOptions
	from, to string
	filter   ops.Filter
}

func newQueueMoveCommand(e *env) *cobra.Command {
	var o queueMoveOptions
	c := &cobra.Command{
		Use:   "move FROM TO",
		Short: "Move ready messages to another queue",
		Long: `Move the ready messages of a queue to another: all of them, or those that the flags choose, the oldest first. They keep
their ids, times, attempts, headers and bodies. Messages that arrive after it began stay, so do those that are being
handled.

It works in batches, each in one of the queues or in the other, whatever happens. One that was interrupted says how many it
has moved and how to go on.`,
		Example: "  sqlq queue move sales sales-slow --type sales.Report\n  sqlq queue move billing billing-eu --header region=eu --rate 500 --dry-run",
		Args:    exactly("FROM", "TO"),
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) >= 2 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return several(completeQueues(e))(c, args, begun)
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.from, o.to = args[0], args[1]
			return runQueueMove(c.Context(), e, &o)
		},
	}
	o.flags(c, asksAlways)
	o.reasonFlag(c)
	filterFlags(e, c, &o.filter, readyMessages)
	_ = c.Flags().MarkHidden("order")
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, "move at most so many; 0: all that are chosen")
	c.Flags().Float64Var(&o.Rate, "rate", 0, "move at most so many a second; 0: as fast as it goes")
	return c
}

func runQueueMove(ctx context.Context, e *env, o *queueMoveOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	from, to := o.from, o.to
	switch {
	case from == to:
		return usageErrorf("FROM and TO are the same queue")
	case o.Rate < 0:
		return usageErrorf("--rate %g: it takes a number of messages a second", o.Rate)
	case o.filter.Order == ops.Newest:
		return usageErrorf("--order: messages are moved the oldest first, or they would change places")
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Queues.Show(ctx, to); err != nil {
		return err
	}
	p := e.progress()
	preview, err := db.Ready.PreviewMove(ctx, from, to, o.filter, ops.ChangeOptions{Progress: foundReady(p)})
	p.End()
	if err != nil {
		return err
	}
	n := preview.Messages
	if n == (ops.Count{}) && !o.filter.ChoosesAll() {
		return errNoneOf(ctx, db, o.filter.Type, "nothing was moved: no ready message of queue %s fits", from)
	}
	what := fmt.Sprintf("move %s of queue %q to queue %q in schema %q of %s", thoseReady(o.filter, n), from, to, e.schema, db.where)
	outcome := struct {
		From   string `json:"from"`
		To     string `json:"to"`
		Moved  int64  `json:"moved"`
		DryRun bool   `json:"dry_run,omitempty"`
	}{from, to, n.N, o.dryRun}
	if o.dryRun {
		return e.done(outcome, "this would %s", what)
	}
	if err := e.confirm(ctx, o.change, what); err != nil {
		return err
	}
	if !o.yes { // somebody was asked about those
		o.UpTo = preview.UpTo
	}
	began := time.Now()
	o.Progress = func(at ops.Progress) {
		p.Show("looked at %d messages, moved %d of %s, %.0f/s", at.Looked, at.Done, count(n), float64(at.Done)/time.Since(began).Seconds())
	}
	outcome.Moved, err = db.Ready.Move(ctx, from, to, o.filter, o.ChangeOptions)
	p.End()
	if err != nil && outcome.Moved == 0 {
		return err
	}
	return errors.Join(e.done(outcome, "moved %s from queue %s to queue %s in %s", plural(outcome.Moved, "message"), from, to, db.where), err)
}
