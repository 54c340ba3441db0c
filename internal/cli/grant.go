package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// grantOptions are the arguments and flags of `sqlq grant`.
type grantOptions struct {
	change
	grant ops.Grant
}

func newGrantCommand(e *env) *cobra.Command {
	var o grantOptions
	c := &cobra.Command{
		Use:   "grant ROLE producer|consumer|operator|viewer",
		Short: "Let a database role send, receive, operate or look",
		Long: `Give a database role what it needs:

  producer  sends and publishes, and reads nothing
  consumer  runs endpoints
  operator  does everything on messages; of all queues: makes and drops queues too
  viewer    counts and lists, without headers and bodies unless --bodies

of the queues that --queue names, or of all, those included that are made later. What the role has besides it keeps, so a
role may be several. Whoever receives from a queue, or looks at its messages, may subscribe it to events of any service and read
them, unless --event names those that it may. The owner of the schema does it, or a member of that role. What a later migration adds
for such roles comes with that migration.`,
		Example:           "  sqlq grant web producer --queue sales --queue billing\n  sqlq grant ledger consumer --queue ledger --event sales.OrderPlaced\n  sqlq grant oncall operator --dry-run",
		Args:              exactly("ROLE", "KIND"),
		ValidArgsFunction: completeGrant(e),
		Annotations:       map[string]string{needs: owner},
		RunE: func(c *cobra.Command, args []string) error {
			o.grant.Role, o.grant.Kind = args[0], args[1]
			return runGrant(c.Context(), e, &o)
		},
	}
	c.Flags().StringSliceVar(&o.grant.Queues, "queue", nil, "of this queue alone; several")
	c.Flags().StringSliceVar(&o.grant.Events, "event", nil, "of a consumer or an operator: subscribe to this event type alone; several")
	c.Flags().BoolVar(&o.grant.Bodies, "bodies", false, "a viewer sees headers and bodies too")
	o.flags(c, asksNever)
	o.reasonFlag(c)
	c.Flag("dry-run").Usage = "only print the SQL; asks no database"
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	_ = c.RegisterFlagCompletionFunc("event", completeTypes(e))
	return c
}

func runGrant(ctx context.Context, e *env, o *grantOptions) error {
	g := o.grant
	statement, err := ops.New(nil, e.schema).Roles.GrantSQL(g)
	if err != nil {
		return usageErrorf("%w", err)
	}
	if o.dryRun {
		return printSQL(e, statement, true)
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Roles.Grant(ctx, g); err != nil {
		return err
	}
	return e.done(g, "role %s is %s of %s%s in schema %q of %s", g.Role, g.Kind, queuesText(g.Queues), eventsText(g.Events), e.schema, db.where)
}

// revokeOptions are the arguments and flags of `sqlq revoke`.
type revokeOptions struct {
	change
	role   string
	queues []string
}

func newRevokeCommand(e *env) *cobra.Command {
	var o revokeOptions
	c := &cobra.Command{
		Use:   "revoke ROLE",
		Short: "Take back what grant gave to a database role",
		Long: `Take back everything that sqlq grant gave to a database role, or, with --queue, what it has on those queues. Programs that
run as that role fail at their next statement. It asks first; off a terminal it needs --yes.`,
		Example:           "  sqlq revoke web --queue billing\n  sqlq revoke web --dry-run",
		Args:              exactly("ROLE"),
		ValidArgsFunction: onlyFirst(completeRoles(e)),
		Annotations:       map[string]string{needs: owner},
		RunE: func(c *cobra.Command, args []string) error {
			o.role = args[0]
			return runRevoke(c.Context(), e, &o)
		},
	}
	c.Flags().StringSliceVar(&o.queues, "queue", nil, "what it has on this queue alone; several")
	o.flags(c, asksAlways)
	o.reasonFlag(c)
	c.Flag("dry-run").Usage = "only print the SQL; asks no database"
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	return c
}

func runRevoke(ctx context.Context, e *env, o *revokeOptions) error {
	if o.dryRun {
		return printSQL(e, ops.New(nil, e.schema).Roles.RevokeSQL(o.role, o.queues), true)
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := e.confirm(ctx, o.change, fmt.Sprintf("take from role %q what it has on %s in schema %q of %s", o.role, queuesText(o.queues), e.schema, db.where)); err != nil {
		return err
	}
	if err := db.Roles.Revoke(ctx, o.role, o.queues); err != nil {
		return err
	}
	outcome := struct {
		Role   string   `json:"role"`
		Queues []string `json:"queues,omitempty"`
	}{o.role, o.queues}
	return e.done(outcome, "role %s has nothing on %s in schema %q of %s any more", o.role, queuesText(o.queues), e.schema, db.where)
}

// completeGrant completes a role, and what it shall be.
func completeGrant(e *env) completing {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return ops.RoleKinds, cobra.ShellCompDirectiveNoFileComp
		}
		return onlyFirst(completeRoles(e))(c, args, begun)
	}
}

// printSQL prints statements that were not run.
func printSQL(e *env, statement string, dryRun bool) error {
	if e.format != formatTable {
		return e.printData(struct {
			SQL    string `json:"sql"`
			DryRun bool   `json:"dry_run,omitempty"`
		}{statement, dryRun})
	}
	_, err := fmt.Fprintln(e.out, statement)
	return err
}

func eventsText(events []string) string {
	switch len(events) {
	case 0:
		return ""
	case 1:
		return " and event " + events[0]
	}
	return " and events " + strings.Join(events, ", ")
}

func queuesText(queues []string) string {
	switch len(queues) {
	case 0:
		return "all queues"
	case 1:
		return "queue " + queues[0]
	}
	return "queues " + strings.Join(queues, ", ")
}
