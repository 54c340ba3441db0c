package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// publishOptions are the arguments and flags of `sqlq publish`.
type publishOptions struct {
	outgoing
}

func newPublishCommand(e *env) *cobra.Command {
	var o publishOptions
	c := &cobra.Command{
		Use:   "publish TYPE [BODY|-]",
		Short: "Publish JSON events to the queues that are subscribed",
		Long: `Publish events: each subscribed queue gets a copy. Their bodies are JSON: one that stands on the command line, or those that
come from standard input or a file, where each is a document over as many lines as it likes, or a line. All are published
in one transaction. Prints their ids, and to which queues they went; exit code 5 where no queue is subscribed, and
nothing was stored.`,
		Example: `  sqlq publish sales.OrderPlaced '{"order": 17}'
  sqlq publish sales.OrderPlaced --header tenant=north --lines < orders.jsonl`,
		Args:        o.arguments(),
		Annotations: map[string]string{needs: "producer"},
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeTypes(e)(c, args, begun)
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.take(c, args)
			return runPublish(c.Context(), e, &o)
		},
	}
	outgoingFlags(e, c, &o.outgoing)
	return c
}

func runPublish(ctx context.Context, e *env, o *publishOptions) error {
	bodies, err := readBodies(ctx, e, &o.outgoing)
	if err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if o.dryRun {
		copies, queues, err := db.PreviewPublish(ctx, o.Outgoing, bodies...)
		if errors.Is(err, ops.ErrNoSubscriber) {
			return errNothing("nothing would be published: no queue is subscribed to %s; subscribe one with: sqlq subscription add %[1]s QUEUE", o.Type)
		}
		if err != nil {
			return err
		}
		return wouldPublish(e, o.Type, len(bodies), copies, queues)
	}
	events, queues, err := db.Publish(ctx, o.Outgoing, bodies...)
	if errors.Is(err, ops.ErrNoSubscriber) {
		return errNothing("nothing was published: no queue is subscribed to %s; subscribe one with: sqlq subscription add %[1]s QUEUE", o.Type)
	}
	if err != nil {
		return err
	}
	return printPublished(e, o.Type, events, queues)
}

func printPublished(e *env, messageType string, events []ops.Published, queues []string) error {
	type view struct {
		ops.Published
		Queues []string `json:"queues"` // null: this role may not see them
	}
	var views []view
	var ids strings.Builder
	copies := 0
	for _, event := range events {
		views = append(views, view{event, queues})
		copies += event.Copies
		ids.WriteString(event.ID + "\n")
	}
	if e.format != formatTable {
		return printList(e, views, nil)
	}
	e.say("published %s of %s: %s", plural(int64(len(events)), "event"), messageType, copiesText(copies, queues))
	_, err := e.out.Write([]byte(ids.String()))
	return err
}

// wouldPublish tells what publishing would do, each event in so many copies.
func wouldPublish(e *env, messageType string, events, copies int, queues []string) error {
	outcome := struct {
		Type   string   `json:"type"`
		Events int      `json:"events"`
		Copies int      `json:"copies"`
		Queues []string `json:"queues"` // null: this role may not see them
		DryRun bool     `json:"dry_run"`
	}{messageType, events, events * copies, queues, true}
	return e.done(outcome, "would publish %s of %s: %s", plural(int64(events), "event"), messageType, copiesText(outcome.Copies, queues))
}

func copiesText(copies int, queues []string) string {
	text := fmt.Sprintf("%d copies", copies)
	if copies == 1 {
		text = "1 copy"
	}
	if len(queues) > 0 {
		text += ", to " + strings.Join(queues, ", ")
	}
	return text
}
