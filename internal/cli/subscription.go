package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
)

func newSubscriptionCommand(e *env) *cobra.Command {
	return noun("subscription", "Look at which queue gets which events; add and remove",
		newSubscriptionListCommand(e), newSubscriptionAddCommand(e), newSubscriptionRemoveCommand(e))
}

func newSubscriptionListCommand(e *env) *cobra.Command {
	var messageType, queue string
	c := &cobra.Command{
		Use:         "ls",
		Aliases:     []string{"list"},
		Short:       "List which queue gets a copy of which event type",
		Example:     "  sqlq subscription ls --type sales.OrderPlaced\n  sqlq subscription ls --queue billing -o jsonl | jq -r .type",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			db, err := e.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			found, err := db.Routes.List(c.Context(), messageType, queue)
			if err != nil {
				return err
			}
			t := &term.Table{Columns: []term.Column{{Name: "type", Cut: true}, {Name: "queue", Cut: true}, {Name: "since", Spare: 1}, {Name: "instances", Right: true, Spare: 2}}}
			for _, s := range found {
				t.Add(s.Type, s.Queue, e.when(s.Since), fmt.Sprint(s.Instances))
			}
			if err := printList(e, found, t); err != nil || len(found) > 0 {
				return err
			}
			return noneFound(c.Context(), e, db, messageType != "" || queue != "", messageType, "no such subscription; an endpoint subscribes to the events that it handles when it starts")
		},
	}
	c.Flags().StringVar(&messageType, "type", "", "those of this event type")
	c.Flags().StringVar(&queue, "queue", "", "those of this queue")
	_ = c.RegisterFlagCompletionFunc("type", completeTypes(e))
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	return c
}

func newSubscriptionAddCommand(e *env) *cobra.Command {
	return newSubscriptionChangeCommand(e, asksNever, &cobra.Command{
		Use:   "add TYPE QUEUE",
		Short: "Let a queue have a copy of every event of a type from now on",
		Long: `Let a queue have a copy of every event of a type that is published from now on. Endpoints do that by themselves for the
events that they handle; this is for queues that are read by something else, and for events to be kept before the
endpoint is deployed. Without a handler for the type the endpoint of the queue cannot handle them: they fail.`,
		Example: "  sqlq subscription add sales.OrderPlaced audit\n  sqlq subscription add sales.OrderPlaced loyalty --reason 'events to be kept until it is deployed'",
	}, func(c *cobra.Command, db *database, ch change, messageType, queue string) error {
		subscribe, done := db.Routes.Subscribe, "subscribed queue %s to %s"
		if ch.dryRun {
			subscribe, done = db.Routes.PreviewSubscribe, "would subscribe queue %s to %s"
		}
		added, err := subscribe(c.Context(), messageType, queue)
		if err != nil {
			return err
		}
		outcome := struct {
			Type   string `json:"type"`
			Queue  string `json:"queue"`
			Added  bool   `json:"added"`
			DryRun bool   `json:"dry_run,omitempty"`
		}{messageType, queue, added, ch.dryRun}
		if !added {
			done = "queue %s was subscribed to %s already"
		}
		return e.done(outcome, done, queue, messageType)
	})
}

func newSubscriptionRemoveCommand(e *env) *cobra.Command {
	return newSubscriptionChangeCommand(e, asksOnTerminal, &cobra.Command{
		Use:   "rm TYPE QUEUE",
		Short: "End a subscription",
		Long: `End a subscription: the queue gets no more events of the type. Copies that wait in it stay. An endpoint that handles the
event subscribes again when it next starts. It asks first, on a terminal.`,
		Example: "  sqlq subscription rm sales.OrderPlaced audit\n  sqlq subscription rm sales.OrderPlaced loyalty --reason 'the service is gone'",
	}, func(c *cobra.Command, db *database, ch change, messageType, queue string) error {
		there, err := db.Routes.List(c.Context(), messageType, queue)
		if err != nil {
			return err
		}
		if len(there) == 0 {
			return errNothing("queue %s is not subscribed to %s", queue, messageType)
		}
		outcome := struct {
			Type    string `json:"type"`
			Queue   string `json:"queue"`
			Removed bool   `json:"removed"`
			DryRun  bool   `json:"dry_run,omitempty"`
		}{messageType, queue, true, ch.dryRun}
		if ch.dryRun {
			return e.done(outcome, "would unsubscribe queue %s from %s", queue, messageType)
		}
		what := fmt.Sprintf("end the subscription of queue %q to %s in schema %q of %s: events that are published meanwhile do not reach it", queue, messageType, e.schema, db.where)
		if err := e.confirmOnTerminal(c.Context(), ch, what); err != nil {
			return err
		}
		removed, err := db.Routes.Unsubscribe(c.Context(), messageType, queue)
		if err != nil {
			return err
		}
		if !removed {
			return errNothing("queue %s is not subscribed to %s any more", queue, messageType)
		}
		return e.done(outcome, "unsubscribed queue %s from %s", queue, messageType)
	})
}

func newSubscriptionChangeCommand(e *env, when string, c *cobra.Command, work func(c *cobra.Command, db *database, ch change, messageType, queue string) error) *cobra.Command {
	var ch change
	c.Args = exactly("TYPE", "QUEUE")
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return completeTypes(e)(c, args, begun)
		case 1:
			return completeQueues(e)(c, args, begun)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		db, err := e.connectToChange(c.Context(), ch)
		if err != nil {
			return err
		}
		defer db.Close()
		return work(c, db, ch, args[0], args[1])
	}
	ch.flags(c, when)
	ch.reasonFlag(c)
	return c
}
