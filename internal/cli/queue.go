package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
)

func newQueueCommand(e *env) *cobra.Command {
	return noun("queue", "Look at queues; make, pause, empty and drop them",
		newQueueListCommand(e), newQueueShowCommand(e), newQueueCreateCommand(e), newQueueDropCommand(e), newQueuePauseCommand(e), newQueueResumeCommand(e),
		newQueuePurgeCommand(e), newQueuePeekCommand(e), newQueueTailCommand(e), newQueueMoveCommand(e), newQueueExportCommand(e), newQueueImportCommand(e))
}

// queueCreateOptions are the arguments and flags of `sqlq queue create`.
type queueCreateOptions struct {
	change
	names []string
}

func newQueueCreateCommand(e *env) *cobra.Command {
	var o queueCreateOptions
	c := &cobra.Command{
		Use:     "create QUEUE...",
		Short:   "Make queues; one that is there already stays as it is",
		Example: "  sqlq queue create sales billing\n  sqlq queue create invoices -o json",
		Args:    atLeastOne("QUEUE"),
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return runQueueCreate(c.Context(), e, &o)
		},
	}
	o.flags(c, asksNever)
	return c
}

func runQueueCreate(ctx context.Context, e *env, o *queueCreateOptions) error {
	db, err := e.connect(ctx)
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
	if o.dryRun {
		create, done = db.Queues.PreviewCreate, "would make queue %s"
	}
	for _, name := range o.names {
		made, err := create(ctx, name)
		if err != nil {
			return errors.Join(err, printList(e, views, nil))
		}
		views = append(views, view{name, made, o.dryRun})
		switch {
		case made:
			e.say(done, name)
		case o.dryRun:
			e.say("queue %s is there already", name)
		default:
			e.say("queue %s was there already", name)
		}
	}
	return printList(e, views, nil)
}
