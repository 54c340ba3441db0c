package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newLeaseCommand(e *env) *cobra.Command {
	return noun("lease", "Look at leased messages; put them back into their queues", newLeaseListCommand(e), newLeaseReleaseCommand(e))
}

// leaseFlags gives a command the flags that choose leased messages.
func leaseFlags(e *env, c *cobra.Command, f *ops.LeaseFilter) {
	c.Flags().StringVar(&f.Queue, "queue", "", "those of this queue")
	c.Flags().StringVar(&f.Type, "type", "", "those of this message type")
	c.Flags().IntVar(&f.Instance, "instance", 0, "those in the hands of the instance with this `ID`")
	c.Flags().Var(duration{&f.Age, false}, "older", "those that have been leased for longer, such as 10m")
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	_ = c.RegisterFlagCompletionFunc("type", completeTypes(e))
	_ = c.RegisterFlagCompletionFunc("instance", completeInstances(e))
}

// leaseListOptions are the flags of `sqlq lease ls`.
type leaseListOptions struct {
	filter ops.LeaseFilter
	paging
}

func newLeaseListCommand(e *env) *cobra.Command {
	var o leaseListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List leased messages, those that were leased first in front",
		Long: `List leased messages, those that were leased first in front: messages in the hands of an instance whose handlers have run
for longer than the hold limit, and for a while after a crash of an endpoint all that are being handled. STATE is that of
the instance: see sqlq instance ls. Leases of an instance that crashed go back by themselves while some process runs an
endpoint.`,
		Example:     "  sqlq lease ls --queue billing --older 10m\n  sqlq lease ls --instance 12 -o json",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runLeaseList(c.Context(), e, &o)
		},
	}
	leaseFlags(e, c, &o.filter)
	limitFlag(c, &o.filter.Limit)
	o.paging.flag(c)
	return watchable(e, c)
}

func runLeaseList(ctx context.Context, e *env, o *leaseListOptions) error {
	return runList(ctx, e, o.filter.Limit, o.paging, func(db *database, limit int, opts ops.PageOptions) (ops.Page[ops.Lease], error) {
		wanted := o.filter
		wanted.Limit = limit
		return db.Leases.Page(ctx, wanted, opts)
	}, printLeases, func(db *database) error {
		return noneFound(ctx, e, db, !o.filter.ChoosesAll(), o.filter.Type, "no such leased messages")
	})
}

func printLeases(e *env, leases []ops.Lease) error {
	t := &term.Table{Columns: []term.Column{{Name: "lease", Right: true}, {Name: "queue", Cut: true}, {Name: "type", Cut: true}, {Name: "attempts", Right: true, Spare: 2},
		{Name: "leased"}, {Name: "instance", Right: true}, {Name: "state"}, {Name: "host", Cut: true, Spare: 1}, {Name: "id", Spare: 3}}}
	for _, l := range leases {
		t.Add(fmt.Sprint(l.Number), l.Queue, l.Type, fmt.Sprint(l.Attempt), e.when(l.LeasedAt), fmt.Sprint(l.Instance), string(l.State), l.Host, l.Message)
	}
	return printList(e, leases, t)
}

// leaseReleaseOptions are the arguments and flags of `sqlq lease release`.
type leaseReleaseOptions struct {
	change
	names  []string
	filter ops.LeaseFilter
	all    bool
}

func newLeaseReleaseCommand(e *env) *cobra.Command {
	var o leaseReleaseOptions
	c := &cobra.Command{
		Use:   "release [LEASE|ID]...",
		Short: "Put leased messages back into their queues",
		Long: `Put leased messages back into their queues, where they are handled again, with the attempts that they had. Name them by
the number of the lease or the id of the message (- reads them from standard input, one a line), or choose them.

While the instance lives its handler goes on: what it returns is dropped, and so is what it sends through its delivery, but
what it does elsewhere is done twice. So it asks first; off a terminal it needs --yes. Messages of an instance that is dead
are handled alone from then on, as one of them may have killed it. Messages that are being settled, or handled in a
transaction, stay leased.`,
		Example: "  sqlq lease release 4711 --reason 'its handler hangs'\n  sqlq lease release --instance 12 --yes",
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return runLeaseRelease(c.Context(), e, &o)
		},
	}
	leaseFlags(e, c, &o.filter)
	c.ValidArgsFunction = several(completeLeases(e))
	c.Flags().BoolVar(&o.all, "all", false, "release every leased message")
	o.flags(c, asksAlways)
	o.reasonFlag(c)
	return c
}

func runLeaseRelease(ctx context.Context, e *env, o *leaseReleaseOptions) error {
	named := ops.Filter{Names: o.names}
	if err := chosenBy(ctx, e, &named, nil); err != nil {
		return err
	}
	o.filter.Names = named.Names
	switch {
	case o.filter.ChoosesAll() && !o.all:
		return usageErrorf("this would release every leased message: name messages, or give --queue, --type, --instance or --older, or --all to mean it")
	case !o.filter.ChoosesAll() && o.all:
		return usageErrorf("--all is every leased message: leave it out, or the names and filters")
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	leases, err := db.Leases.PreviewRelease(ctx, o.filter)
	var missing *ops.NoLeaseError
	if err != nil && !errors.As(err, &missing) {
		return err
	}
	if len(leases) == 0 {
		return errNoneOf(ctx, db, o.filter.Type, "no such leased messages")
	}
	if o.dryRun {
		return errors.Join(releaseDryRun(e, leases, missing), err)
	}
	if livingLeases(leases) > 0 {
		if err := e.confirm(ctx, o.change, "release "+releasingText(leases)); err != nil {
			return err
		}
	}
	released, err := db.Leases.Release(ctx, o.filter)
	if err != nil && released == (ops.Released{}) {
		return err
	}
	err = errors.Join(e.done(released, "released %s", plural(released.Released, "message")), err)
	if released.Busy > 0 {
		e.say("left %s leased that were being settled, or handled in a transaction", plural(released.Busy, "message"))
	}
	return err
}

func releaseDryRun(e *env, leases []ops.Lease, missing *ops.NoLeaseError) error {
	if e.format == formatTable {
		e.say("would release %s", releasingText(leases))
		return printLeases(e, leases)
	}
	view := struct {
		DryRun  bool        `json:"dry_run"`
		Chosen  int         `json:"chosen"`
		Living  int64       `json:"of_living_instances"` // their handlers go on
		Missing []string    `json:"missing,omitempty"`
		Leases  []ops.Lease `json:"leases"`
	}{DryRun: true, Chosen: len(leases), Living: livingLeases(leases), Leases: leases}
	if missing != nil {
		view.Missing = missing.Missing
	}
	return e.printData(view)
}

func livingLeases(leases []ops.Lease) (n int64) {
	for _, l := range leases {
		if l.State.Lives() {
			n++
		}
	}
	return n
}

// releasingText says what releasing would do.
func releasingText(leases []ops.Lease) string {
	text := plural(int64(len(leases)), "leased message")
	if n := livingLeases(leases); n > 0 {
		text += fmt.Sprintf(", %d of them in the hands of instances that may live, whose handlers go on: those may be handled twice", n)
	}
	return text
}
