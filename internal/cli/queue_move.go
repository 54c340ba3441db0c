package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func newQueueMoveCommand(e *env) *cobra.Command {
	var ch change
	var f ops.Filter
	var opts ops.ChangeOptions
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
			if err := chosenBy(c.Context(), e, &f, nil); err != nil {
				return err
			}
			from, to := args[0], args[1]
			switch {
			case from == to:
				return usageErrorf("FROM and TO are the same queue")
			case opts.Rate < 0:
				return usageErrorf("--rate %g: it takes a number of messages a second", opts.Rate)
			case f.Order == ops.Newest:
				return usageErrorf("--order: messages are moved the oldest first, or they would change places")
			}
			db, err := e.connectToChange(c.Context(), ch)
			if err != nil {
				return err
			}
			defer db.Close()
			if _, err := db.Queues.Show(c.Context(), to); err != nil {
				return err
			}
			p := e.progress()
			preview, err := db.Ready.PreviewMove(c.Context(), from, to, f, ops.ChangeOptions{Progress: foundReady(p)})
			p.End()
			if err != nil {
				return err
			}
			n := preview.Messages
			if n == (ops.Count{}) && !f.ChoosesAll() {
				return errNoneOf(c.Context(), db, f.Type, "nothing was moved: no ready message of queue %s fits", from)
			}
			what := fmt.Sprintf("move %s of queue %q to queue %q in schema %q of %s", thoseReady(f, n), from, to, e.schema, db.where)
			outcome := struct {
				From   string `json:"from"`
				To     string `json:"to"`
				Moved  int64  `json:"moved"`
				DryRun bool   `json:"dry_run,omitempty"`
			}{from, to, n.N, ch.dryRun}
			if ch.dryRun {
				return e.done(outcome, "this would %s", what)
			}
			if err := e.confirm(c.Context(), ch, what); err != nil {
				return err
			}
			if !ch.yes { // somebody was asked about those
				opts.UpTo = preview.UpTo
			}
			began := time.Now()
			opts.Progress = func(at ops.Progress) {
				p.Show("looked at %d messages, moved %d of %s, %.0f/s", at.Looked, at.Done, count(n), float64(at.Done)/time.Since(began).Seconds())
			}
			outcome.Moved, err = db.Ready.Move(c.Context(), from, to, f, opts)
			p.End()
			if err != nil && outcome.Moved == 0 {
				return err
			}
			return errors.Join(e.done(outcome, "moved %s from queue %s to queue %s in %s", plural(outcome.Moved, "message"), from, to, db.where), err)
		},
	}
	ch.flags(c, asksAlways)
	ch.reasonFlag(c)
	filterFlags(e, c, &f, readyMessages)
	_ = c.Flags().MarkHidden("order")
	c.Flags().IntVarP(&f.Limit, "limit", "n", 0, "move at most so many; 0: all that are chosen")
	c.Flags().Float64Var(&opts.Rate, "rate", 0, "move at most so many a second; 0: as fast as it goes")
	return c
}
