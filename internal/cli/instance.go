package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newInstanceCommand(e *env) *cobra.Command {
	return noun("instance", "Look at the processes that handle messages", newInstanceListCommand(e))
}

// instanceListOptions are the flags of `sqlq instance ls`.
type instanceListOptions struct {
	filter ops.InstanceFilter
	paging
}

func newInstanceListCommand(e *env) *cobra.Command {
	var o instanceListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the running instances of the endpoints",
		Long: `List the running instances of the endpoints: a process that runs several endpoints has one of each. What they count is as
of their last heartbeat, at most 5 s ago while they are well:

  in hand  handlers that run, of how many may at a time (its concurrency)
  rate     messages handled a second
  handled  messages settled since it began
  failed   likewise: failed for good, or to be retried later
  slow     handlers that run for longer than the endpoint's limit (30 s unless it says otherwise), and the longest
  state    running; late: no heartbeat for longer than its lease time, so it is dead or cut off, and nobody has noticed;
           with --all also crashed: found dead, its messages went to others; drained: ended in order

JSON and YAML also have what it dropped unhandled since it began, because the time to live had passed (expired).`,
		Example:     "  sqlq instance ls --endpoint billing\n  sqlq instance ls --all -o jsonl | jq 'select(.state == \"crashed\")'",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runInstanceList(c.Context(), e, &o)
		},
	}
	c.Flags().StringVar(&o.filter.Endpoint, "endpoint", "", "those of this endpoint")
	c.Flags().BoolVar(&o.filter.All, "all", false, "also those that ended within a day")
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 200, "list at most so many; 0: all")
	o.paging.flag(c)
	_ = c.RegisterFlagCompletionFunc("endpoint", completeQueues(e))
	return watchable(e, c)
}

func runInstanceList(ctx context.Context, e *env, o *instanceListOptions) error {
	none := "no instance runs; --all lists those that ended within a day"
	if o.filter.All {
		none = "no instances"
	}
	return runList(ctx, e, o.filter.Limit, o.paging, func(db *database, limit int, opts ops.PageOptions) (ops.Page[ops.Instance], error) {
		wanted := o.filter
		wanted.Limit = limit
		return db.Instances.Page(ctx, wanted, opts)
	}, printInstances, func(db *database) error {
		return noneFound(ctx, e, db, o.filter.Endpoint != "", "", none)
	})
}

func printInstances(e *env, instances []ops.Instance) error {
	t := &term.Table{Columns: []term.Column{{Name: "endpoint", Cut: true}, {Name: "id", Right: true}, {Name: "host", Cut: true}, {Name: "pid", Right: true, Spare: 3},
		{Name: "version", Cut: true, Spare: 4}, {Name: "state"}, {Name: "started", Spare: 5}, {Name: "last seen"}, {Name: "in hand", Right: true},
		{Name: "rate", Right: true}, {Name: "handled", Right: true, Spare: 2}, {Name: "failed", Right: true, Spare: 1},
		{Name: "slow", Right: true}}}
	for _, i := range instances {
		inHand, rate, slow := "-", "-", "-"
		if i.State.Lives() {
			inHand, rate, slow = fmt.Sprintf("%d/%d", i.InHand, i.Concurrency), instanceRate(i.Rate), instanceSlow(i)
		}
		t.Add(i.Endpoint, fmt.Sprint(i.ID), i.Host, fmt.Sprint(i.PID), i.Version, string(i.State), e.when(i.StartedAt), e.when(i.LastSeen),
			inHand, rate, fmt.Sprint(i.Handled), fmt.Sprint(i.Failed), slow)
	}
	return printList(e, instances, t)
}

// instanceRate writes a rate.
func instanceRate(rate float64) string {
	switch {
	case rate == 0:
		return "0/s"
	case rate < 99.5:
		return fmt.Sprintf("%.1f/s", rate)
	default:
		return fmt.Sprintf("%.0f/s", rate)
	}
}

// instanceSlow writes how many handlers are slow, and how long the longest has run.
func instanceSlow(i ops.Instance) string {
	if i.Slow == 0 || i.Slowest == nil {
		return fmt.Sprint(i.Slow)
	}
	return fmt.Sprintf("%d (%s)", i.Slow, age(*i.Slowest))
}
