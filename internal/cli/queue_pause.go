package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// queuePauseOptions are the arguments and flags of `sqlq queue pause` and `sqlq queue resume`.
type queuePauseOptions struct {
	change
	names []string
	all   bool
}

// pauseVerb is which of the two it is.
type pauseVerb struct {
	name, done, already string
	pauses              bool
	do                  func(ops.Queues, context.Context, string) (changed bool, err error)
}

var (
	pauseQueues  = pauseVerb{"pause", "paused", "is paused already", true, ops.Queues.Pause}
	resumeQueues = pauseVerb{"resume", "resumed", "is not paused", false, ops.Queues.Resume}
)

func newQueuePauseCommand(e *env) *cobra.Command {
	return newPausingCommand(e, pauseQueues, &cobra.Command{
		Short: "Let queues hand out no more messages; sending goes on",
		Long: `Let queues hand out no more messages. Sending goes on, and so does what is being handled. Instances learn of it at once.
A queue that is paused already stays as it is. It does not ask, but for --all on a terminal: sqlq queue resume takes it back.

With --all it pauses all queues that there are, as wanted of a copy of a production database before anything runs on it.`,
		Example: "  sqlq queue pause billing --reason 'the bank is down'\n  sqlq queue pause --all --reason 'a copy for tests'",
	})
}

func newQueueResumeCommand(e *env) *cobra.Command {
	return newPausingCommand(e, resumeQueues, &cobra.Command{
		Short:   "Let paused queues hand out messages again",
		Example: "  sqlq queue resume billing\n  sqlq queue resume --all --reason 'the bank is back'",
	})
}

// newPausingCommand completes the command that pauses queues or the one that resumes them.
func newPausingCommand(e *env, v pauseVerb, c *cobra.Command) *cobra.Command {
	var o queuePauseOptions
	c.Use = v.name + " QUEUE...|--all"
	c.Args = func(c *cobra.Command, names []string) error {
		switch {
		case o.all && len(names) > 0:
			return errors.New("name queues, or say --all")
		case o.all:
			return nil
		}
		return atLeastOne("QUEUE")(c, names)
	}
	c.ValidArgsFunction = several(completeQueues(e))
	c.RunE = func(c *cobra.Command, names []string) error {
		o.names = names
		return runQueuePause(c.Context(), e, v, &o)
	}
	o.flags(c, asksNever)
	c.Flag("yes").Usage = "do it without asking, as --all does on a terminal"
	c.Flags().BoolVar(&o.all, "all", false, "all queues that there are at this moment")
	o.reasonFlag(c)
	return c
}

func runQueuePause(ctx context.Context, e *env, v pauseVerb, o *queuePauseOptions) error {
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	type view struct {
		Queue   string `json:"queue"`
		Changed bool   `json:"changed"`
		DryRun  bool   `json:"dry_run,omitempty"`
	}
	names := o.names
	if o.all {
		if names, err = db.Queues.Names(ctx); err != nil {
			return err
		}
		if len(names) == 0 {
			return errNothing("schema %q of %s has no queues", e.schema, db.where)
		}
		what := fmt.Sprintf("%s all of the %s in schema %q of %s", v.name, plural(int64(len(names)), "queue"), e.schema, db.where)
		if o.dryRun {
			o.yes = true
		}
		if err := e.confirmOnTerminal(ctx, o.change, what); err != nil {
			return err
		}
	}
	var views []view
	for _, name := range names {
		changed := false
		if o.dryRun {
			q, err := db.Queues.Show(ctx, name)
			if err != nil {
				return errors.Join(err, printList(e, views, nil))
			}
			changed = (q.PausedAt == nil) == v.pauses
		} else if changed, err = v.do(db.Queues, ctx, name); err != nil {
			return errors.Join(err, printList(e, views, nil))
		}
		views = append(views, view{name, changed, o.dryRun})
		switch {
		case !changed:
			e.say("queue %s %s", name, v.already)
		case o.dryRun:
			e.say("queue %s would be %s", name, v.done)
		default:
			e.say("%s queue %s", v.done, name)
		}
	}
	return printList(e, views, nil)
}
