package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func newQueueCommand(e *env) *cobra.Command {
	return noun("queue", "Look at queues; make, pause, empty and drop them",
		newQueueListCommand(e), newQueueShowCommand(e), newQueueCreateCommand(e), newQueueDropCommand(e), newQueuePauseCommand(e), newQueueResumeCommand(e),
		newQueuePurgeCommand(e), newQueuePeekCommand(e), newQueueTailCommand(e), newQueueMoveCommand(e), newQueueExportCommand(e), newQueueImportCommand(e))
}

func newQueueCreateCommand(e *env) *cobra.Command {
	var ch change
	c := &cobra.Command{
		Use:     "create QUEUE...",
		Short:   "Make queues; one that is there already stays as it is",
		Example: "  sqlq queue create sales billing\n  sqlq queue create invoices -o json",
		Args:    atLeastOne("QUEUE"),
		RunE: func(c *cobra.Command, names []string) error {
			db, err := e.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			type view struct {
				Queue   string `json:"queue"`
				Created bool   `json:"created"`
				DryRun  bool   `json:"dry_run,omitempty"`
			}
			var views []view
			create, done := db.Queues.Create, "made queue %s"
			if ch.dryRun {
				create, done = db.Queues.PreviewCreate, "would make queue %s"
			}
			for _, name := range names {
				made, err := create(c.Context(), name)
				if err != nil {
					return errors.Join(err, printList(e, views, nil))
				}
				views = append(views, view{name, made, ch.dryRun})
				switch {
				case made:
					e.say(done, name)
				case ch.dryRun:
					e.say("queue %s is there already", name)
				default:
					e.say("queue %s was there already", name)
				}
			}
			return printList(e, views, nil)
		},
	}
	ch.flags(c, asksNever)
	return c
}

func newQueuePauseCommand(e *env) *cobra.Command {
	return pausing(e, "pause", "paused", "is paused already", ops.Queues.Pause, &cobra.Command{
		Short: "Let queues hand out no more messages; sending goes on",
		Long: `Let queues hand out no more messages. Sending goes on, and so does what is being handled. Instances learn of it at once.
A queue that is paused already stays as it is. It does not ask, but for --all on a terminal: sqlq queue resume takes it back.

With --all it pauses all queues that there are, as wanted of a copy of a production database before anything runs on it.`,
		Example: "  sqlq queue pause billing --reason 'the bank is down'\n  sqlq queue pause --all --reason 'a copy for tests'",
	})
}

func newQueueResumeCommand(e *env) *cobra.Command {
	return pausing(e, "resume", "resumed", "is not paused", ops.Queues.Resume, &cobra.Command{
		Short:   "Let paused queues hand out messages again",
		Example: "  sqlq queue resume billing\n  sqlq queue resume --all --reason 'the bank is back'",
	})
}

// pausing completes the command that pauses queues or the one that resumes them.
func pausing(e *env, verb, done, already string, do func(ops.Queues, context.Context, string) (bool, error), c *cobra.Command) *cobra.Command {
	var ch change
	var all bool
	c.Use = verb + " QUEUE...|--all"
	c.Args = func(c *cobra.Command, names []string) error {
		switch {
		case all && len(names) > 0:
			return errors.New("name queues, or say --all")
		case all:
			return nil
		}
		return atLeastOne("QUEUE")(c, names)
	}
	c.ValidArgsFunction = several(completeQueues(e))
	c.RunE = func(c *cobra.Command, names []string) error {
		db, err := e.connectToChange(c.Context(), ch)
		if err != nil {
			return err
		}
		defer db.Close()
		type view struct {
			Queue   string `json:"queue"`
			Changed bool   `json:"changed"`
			DryRun  bool   `json:"dry_run,omitempty"`
		}
		if all {
			if names, err = db.Queues.Names(c.Context()); err != nil {
				return err
			}
			if len(names) == 0 {
				return errNothing("schema %q of %s has no queues", e.schema, db.where)
			}
			what := fmt.Sprintf("%s all of the %s in schema %q of %s", verb, plural(int64(len(names)), "queue"), e.schema, db.where)
			if ch.dryRun {
				ch.yes = true
			}
			if err := e.confirmOnTerminal(c.Context(), ch, what); err != nil {
				return err
			}
		}
		var views []view
		for _, name := range names {
			changed := false
			if ch.dryRun {
				q, err := db.Queues.Show(c.Context(), name)
				if err != nil {
					return errors.Join(err, printList(e, views, nil))
				}
				changed = (q.PausedAt == nil) == (verb == "pause")
			} else if changed, err = do(db.Queues, c.Context(), name); err != nil {
				return errors.Join(err, printList(e, views, nil))
			}
			views = append(views, view{name, changed, ch.dryRun})
			switch {
			case !changed:
				e.say("queue %s %s", name, already)
			case ch.dryRun:
				e.say("queue %s would be %s", name, done)
			default:
				e.say("%s queue %s", done, name)
			}
		}
		return printList(e, views, nil)
	}
	ch.flags(c, asksNever)
	c.Flag("yes").Usage = "do it without asking, as --all does on a terminal"
	c.Flags().BoolVar(&all, "all", false, "all queues that there are at this moment")
	ch.reasonFlag(c)
	return c
}
