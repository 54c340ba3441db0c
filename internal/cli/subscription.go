package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
)

func newSubscriptionCommand(e *env) *cobra.Command {
	return noun("subscription", "Look at which queue gets which events; add and remove",
		newSubscriptionListCommand(e), newSubscriptionAddCommand(e), newSubscriptionRemoveCommand(e))
}

// subscriptionListOptions are the flags of `sqlq subscription ls`.
type subscriptionListOptions struct {
	messageType string
	queue       string
}

func newSubscriptionListCommand(e *env) *cobra.Command {
	var o subscriptionListOptions
	c := &cobra.Command{
		Use:         "ls",
		Aliases:     []string{"list"},
		Short:       "List which queue gets a copy of which event type",
		Example:     "  sqlq subscription ls --type sales.OrderPlaced\n  sqlq subscription ls --queue billing -o jsonl | jq -r .type",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runSubscriptionList(c.Context(), e, &o)
		},
	}
	c.Flags().StringVar(&o.messageType, "type", "", "those of this event type")
	c.Flags().StringVar(&o.queue, "queue", "", "those of this queue")
	_ = c.RegisterFlagCompletionFunc("type", completeTypes(e))
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	return c
}

func runSubscriptionList(ctx context.Context, e *env, o *subscriptionListOptions) error {
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	found, err := db.Routes.List(ctx, o.messageType, o.queue)
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
	return noneFound(ctx, e, db, o.messageType != "" || o.queue != "", o.messageType, "no such subscription; an endpoint subscribes to the events that it handles when it starts")
}

// subscriptionChangeOptions are the arguments and flags of `sqlq subscription add` and `sqlq subscription rm`.
type subscriptionChangeOptions struct {
	change
	messageType, queue string
}

func newSubscriptionAddCommand(e *env) *cobra.Command {
	return newSubscriptionChangeCommand(e, asksNever, &cobra.Command{
		Use:   "add TYPE QUEUE",
		Short: "Let a queue have a copy of every event of a type from now on",
		Long: `Let a queue have a copy of every event of a type that is published from now on. Endpoints do that by themselves for the
events that they handle; this is for queues that are read by something else, and for events to be kept before the
endpoint is deployed. Without a handler for the type the endpoint of the queue cannot handle them: they fail.`,
		Example: "  sqlq subscription add sales.OrderPlaced audit\n  sqlq subscription add sales.OrderPlaced loyalty --reason 'events to be kept until it is deployed'",
	}, runSubscriptionAdd)
}

func runSubscriptionAdd(ctx context.Context, e *env, o *subscriptionChangeOptions) error {
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	subscribe, done := db.Routes.Subscribe, "subscribed queue %s to %s"
	if o.dryRun {
		subscribe, done = db.Routes.PreviewSubscribe, "would subscribe queue %s to %s"
	}
	added, err := subscribe(ctx, o.messageType, o.queue)
	if err != nil {
		return err
	}
	outcome := struct {
		Type   string `json:"type"`
		Queue  string `json:"queue"`
		Added  bool   `json:"added"`
		DryRun bool   `json:"dry_run,omitempty"`
	}{o.messageType, o.queue, added, o.dryRun}
	if !added {
		done = "queue %s was subscribed to %s already"
	}
	return e.done(outcome, done, o.queue, o.messageType)
}

func newSubscriptionRemoveCommand(e *env) *cobra.Command {
	return newSubscriptionChangeCommand(e, asksOnTerminal, &cobra.Command{
		Use:   "rm TYPE QUEUE",
		Short: "End a subscription",
		Long: `End a subscription: the queue gets no more events of the type. Copies that wait in it stay. An endpoint that handles the
event subscribes again when it next starts. It asks first, on a terminal.`,
		Example: "  sqlq subscription rm sales.OrderPlaced audit\n  sqlq subscription rm sales.OrderPlaced loyalty --reason 'the service is gone'",
	}, runSubscriptionRemove)
}

func runSubscriptionRemove(ctx context.Context, e *env, o *subscriptionChangeOptions) error {
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	there, err := db.Routes.List(ctx, o.messageType, o.queue)
	if err != nil {
		return err
	}
	if len(there) == 0 {
		return errNothing("queue %s is not subscribed to %s", o.queue, o.messageType)
	}
	outcome := struct {
		Type    string `json:"type"`
		Queue   string `json:"queue"`
		Removed bool   `json:"removed"`
		DryRun  bool   `json:"dry_run,omitempty"`
	}{o.messageType, o.queue, true, o.dryRun}
	if o.dryRun {
		return e.done(outcome, "would unsubscribe queue %s from %s", o.queue, o.messageType)
	}
	what := fmt.Sprintf("end the subscription of queue %q to %s in schema %q of %s: events that are published meanwhile do not reach it", o.queue, o.messageType, e.schema, db.where)
	if err := e.confirmOnTerminal(ctx, o.change, what); err != nil {
		return err
	}
	removed, err := db.Routes.Unsubscribe(ctx, o.messageType, o.queue)
	if err != nil {
		return err
	}
	if !removed {
		return errNothing("queue %s is not subscribed to %s any more", o.queue, o.messageType)
	}
	return e.done(outcome, "unsubscribed queue %s from %s", o.queue, o.messageType)
}

// newSubscriptionChangeCommand completes the command that adds a subscription or the one that removes it.
func newSubscriptionChangeCommand(e *env, when string, c *cobra.Command, run func(context.Context, *env, *subscriptionChangeOptions) error) *cobra.Command {
	var o subscriptionChangeOptions
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
		o.messageType, o.queue = args[0], args[1]
		return run(c.Context(), e, &o)
	}
	o.flags(c, when)
	o.reasonFlag(c)
	return c
}
