package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// queueDropOptions are the arguments and flags of `sqlq queue drop`.
type queueDropOptions struct {
	change
	queue string
	force bool
}

func newQueueDropCommand(e *env) *cobra.Command {
	var o queueDropOptions
	c := &cobra.Command{
		Use:   "drop QUEUE",
		Short: "Remove a queue and its subscriptions",
		Long: `Remove a queue and its subscriptions. A queue that holds messages, ready, delayed or leased, is only removed with
--force, and they with it. Failed messages stay in the error table. It asks first, of a queue that holds messages for its
name; off a terminal it needs --yes.`,
		Example:           "  sqlq queue drop sales\n  sqlq queue drop sales --force --reason 'moved to the new cluster'",
		Args:              exactly("QUEUE"),
		ValidArgsFunction: onlyFirst(completeQueues(e)),
		RunE: func(c *cobra.Command, args []string) error {
			o.queue = args[0]
			return runQueueDrop(c.Context(), e, &o)
		},
	}
	o.flags(c, asksAlways)
	o.reasonFlag(c)
	c.Flags().BoolVar(&o.force, "force", false, "drop it even if it holds messages, which are lost")
	return c
}

func runQueueDrop(ctx context.Context, e *env, o *queueDropOptions) error {
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	q, err := db.Queues.Show(ctx, o.queue)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("drop queue %q (%s ready, %s delayed, %s leased, %s) in schema %q of %s",
		q.Name, count(q.Ready), count(q.Delayed), count(q.Leased), plural(int64(len(q.Subscribed)), "subscription"), e.schema, db.where)
	holds := q.Ready.N + q.Delayed.N + q.Leased.N
	outcome := struct {
		Queue   string `json:"queue"`
		Removed int64  `json:"messages_removed"`
		Refused bool   `json:"needs_force,omitempty"`
		DryRun  bool   `json:"dry_run,omitempty"`
	}{Queue: q.Name, Removed: holds, DryRun: o.dryRun}
	if o.dryRun {
		if outcome.Refused = holds > 0 && !o.force; outcome.Refused {
			what += "; it holds messages, and would be refused without --force"
		}
		return e.done(outcome, "this would %s", what)
	}
	if holds > 0 && !o.force { // to ask first would be for nothing
		return fmt.Errorf("queue %q holds %s ready, %s delayed and %s leased messages; empty it with: sqlq queue purge %s --delayed\nOr drop it with them, for good: --force",
			q.Name, count(q.Ready), count(q.Delayed), count(q.Leased), q.Name)
	}
	if err := confirmDestruction(ctx, e, o.change, what, q.Name, holds > 0); err != nil {
		return err
	}
	if outcome.Removed, err = db.Queues.Drop(ctx, q.Name, o.force); err != nil {
		return err
	}
	return e.done(outcome, "dropped queue %s and %s in %s", q.Name, plural(outcome.Removed, "message"), db.where)
}

// confirmDestruction asks before a queue is emptied or dropped: for its name where messages go with it.
func confirmDestruction(ctx context.Context, e *env, ch change, what, name string, messages bool) error {
	if messages {
		return e.confirmByName(ctx, ch, what, name)
	}
	return e.confirm(ctx, ch, what)
}

// queuePurgeOptions are the arguments and flags of `sqlq queue purge`.
type queuePurgeOptions struct {
	change
	ops.PurgeOptions
	queue  string
	filter ops.Filter
}

func newQueuePurgeCommand(e *env) *cobra.Command {
	var o queuePurgeOptions
	c := &cobra.Command{
		Use:   "purge QUEUE",
		Short: "Remove the messages that wait in a queue, for good",
		Long: `Remove the ready messages of a queue, for good: all of them, or those that the flags choose. With --delayed the queue's
delayed messages go too. Messages that are being handled stay, so do failed ones. It asks for the queue's name first;
off a terminal it needs --yes.

It works in batches. One that was interrupted says how many it has removed and how to go on.`,
		Example:           "  sqlq queue purge sales --delayed\n  sqlq queue purge sales --type sales.Remind --until 2d --dry-run",
		Args:              exactly("QUEUE"),
		ValidArgsFunction: onlyFirst(completeQueues(e)),
		RunE: func(c *cobra.Command, args []string) error {
			o.queue = args[0]
			return runQueuePurge(c.Context(), e, &o)
		},
	}
	o.flags(c, asksAlways)
	o.reasonFlag(c)
	filterFlags(e, c, &o.filter, readyMessages)
	c.Flags().BoolVar(&o.Delayed, "delayed", false, "remove the queue's delayed messages too; --since and --until are then due times")
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, "remove at most so many; 0: all that are chosen")
	return c
}

func runQueuePurge(ctx context.Context, e *env, o *queuePurgeOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	q, err := db.Queues.Show(ctx, o.queue)
	if err != nil {
		return err
	}
	preview, err := countToPurge(ctx, e, db, q.Queue, o.filter, o.PurgeOptions)
	if err != nil {
		return err
	}
	ready, delayed := preview.Messages, preview.Delayed
	if ready == (ops.Count{}) && delayed == (ops.Count{}) && !o.filter.ChoosesAll() {
		return errNoneOf(ctx, db, o.filter.Type, "nothing was removed: no such message of queue %s fits", q.Name)
	}
	what := fmt.Sprintf("remove %s", thoseReady(o.filter, ready))
	if o.Delayed {
		what += fmt.Sprintf(" and %s delayed messages", count(delayed))
	}
	what += fmt.Sprintf(" of queue %q in schema %q of %s", q.Name, e.schema, db.where)
	outcome := struct {
		Queue   string `json:"queue"`
		Ready   int64  `json:"ready_removed"`
		Delayed int64  `json:"delayed_removed"`
		DryRun  bool   `json:"dry_run,omitempty"`
	}{q.Name, ready.N, delayed.N, o.dryRun}
	if o.dryRun {
		return e.done(outcome, "this would %s", what)
	}
	if err := confirmDestruction(ctx, e, o.change, what, q.Name, ready.N+delayed.N > 0); err != nil {
		return err
	}
	p := e.progress()
	o.Progress = func(at ops.Progress) { p.Show("looked at %d messages, removed %d", at.Looked, at.Done) }
	if !o.yes && !o.Delayed { // somebody was asked about those; delayed ones may have become ready since
		o.UpTo = preview.UpTo
	}
	purged, err := db.Ready.Purge(ctx, q.Name, o.filter, o.PurgeOptions)
	p.End()
	if err != nil && purged == (ops.Purged{}) {
		return err
	}
	outcome.Ready, outcome.Delayed = purged.Ready, purged.Delayed
	if q.Delayed.N > 0 && !o.Delayed {
		e.say("%s delayed messages are left; --delayed removes them too", count(q.Delayed))
	}
	if err != nil && o.Delayed {
		err = fmt.Errorf("%w\nThe others are still there; the same command goes on", err)
	}
	return errors.Join(e.done(outcome, "removed %d ready and %d delayed messages of queue %s in %s", purged.Ready, purged.Delayed, q.Name, db.where), err)
}

// countToPurge counts what a purge would remove, and says on a terminal how far it is.
func countToPurge(ctx context.Context, e *env, db *database, q ops.Queue, f ops.Filter, opts ops.PurgeOptions) (preview ops.Preview, err error) {
	p := e.progress()
	defer p.End()
	opts.Progress = foundReady(p)
	preview, err = db.Ready.PreviewPurge(ctx, q.Name, f, opts)
	if opts.Delayed && f.ChoosesAll() && f.Limit == 0 {
		preview.Delayed = q.Delayed
	}
	return preview, err
}

// foundReady shows how far a count of ready messages is.
func foundReady(p *term.Status) func(ops.Progress) {
	return func(at ops.Progress) { p.Show("looked at %d messages, found %d", at.Looked, at.Done) }
}

// thoseReady names the messages that a filter chooses, and their number.
func thoseReady(f ops.Filter, n ops.Count) string {
	switch {
	case !f.ChoosesAll() || f.Limit > 0:
		return count(n) + " chosen ready messages"
	case n.N == 0:
		return "0 ready messages"
	default:
		return "all " + count(n) + " ready messages"
	}
}
