package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newErrorCommand(e *env) *cobra.Command {
	return noun("error", "Look at failed messages; mend, replay, archive and delete them",
		newErrorListCommand(e), newErrorCountCommand(e), newErrorGroupsCommand(e), newErrorShowCommand(e), newErrorExportCommand(e), newErrorEditCommand(e),
		newErrorReplayCommand(e), newErrorArchiveCommand(e), newErrorUnarchiveCommand(e), newErrorDeleteCommand(e))
}

// errorListOptions are the flags of `sqlq error ls`.
type errorListOptions struct {
	filter ops.Filter
	paging
}

func newErrorListCommand(e *env) *cobra.Command {
	var o errorListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List failed messages, the newest first",
		Long: `List failed messages, the newest first. The flags choose; a message must fit all of them. --queue, --type, --group,
--status, --id and the times are found at once, however many messages failed; the others look at each message that those
leave. With a choice that nothing fits the exit code is 5.`,
		Example: `  sqlq error ls --queue billing --since 1h
  sqlq error ls --type sales.PlaceOrder --error '/time(d )?out/' --body '$.amount > 100' -o jsonl`,
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			needsOperatorFor(c, &o.filter)
			return runErrorList(c.Context(), e, &o)
		},
	}
	filterFlags(e, c, &o.filter, failedMessages)
	limitFlag(c, &o.filter.Limit)
	o.paging.flag(c)
	return watchable(e, c)
}

func runErrorList(ctx context.Context, e *env, o *errorListOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	return listFailed(ctx, e, db, o)
}

// needsOperatorFor marks a command as one for operators where its filter looks into headers or bodies, which a viewer may not.
func needsOperatorFor(c *cobra.Command, f *ops.Filter) {
	if len(f.Headers) > 0 || f.Body != "" {
		c.Annotations[needs] = "operator"
	}
}

func listFailed(ctx context.Context, e *env, db *database, o *errorListOptions) error {
	t := &term.Table{Columns: []term.Column{{Name: "number", Right: true}, {Name: "when"}, {Name: "queue", Cut: true}, {Name: "type", Cut: true},
		{Name: "attempts", Right: true, Spare: 2}, {Name: "error", Cut: true}, {Name: "group", Spare: 1}}}
	var views []ops.FailedMessage
	found, looked := 0, int64(0)
	p := e.progress()
	show := looking(p, &found)
	next, err := eachPage(o.filter.Limit, o.paging, func(limit int, opts ops.PageOptions) (ops.Page[ops.FailedMessage], error) {
		wanted := o.filter
		wanted.Limit = limit
		return db.Failed.Page(ctx, wanted, opts)
	}, func(page ops.Page[ops.FailedMessage]) error {
		for _, m := range page.Items {
			found++
			if e.format == formatJSONL {
				p.End()
				if err := e.printData(m); err != nil {
					return err
				}
				continue
			}
			views = append(views, m)
			t.Add(fmt.Sprint(m.Number), e.when(m.FailedAt), m.Queue, m.Type, fmt.Sprint(m.Attempts), m.Error, m.Group)
		}
		looked += page.Looked
		show(ops.Progress{Looked: looked})
		return nil
	})
	p.End()
	if e.format != formatJSONL && (err == nil || found > 0) {
		err = errors.Join(printList(e, views, t), err)
	}
	switch {
	case err != nil:
		return err
	case found == 0:
		return noFailed(ctx, e, db, o.filter)
	}
	sayMore(e, found, next)
	return nil
}

// looking returns what shows how far a search through failed messages is.
func looking(p *term.Status, found *int) func(ops.Progress) {
	return func(at ops.Progress) { p.Show("looked at %s, found %d", plural(at.Looked, "failed message"), *found) }
}

func noFailed(ctx context.Context, e *env, db *database, f ops.Filter) error {
	return noneFound(ctx, e, db, !f.ChoosesAll() || f.Status != "", f.Type, "no such messages in the error table")
}

// errorCountOptions are the flags of `sqlq error count`.
type errorCountOptions struct {
	filter ops.Filter
}

func newErrorCountCommand(e *env) *cobra.Command {
	var o errorCountOptions
	c := &cobra.Command{
		Use:   "count",
		Short: "Count failed messages",
		Long: `Count failed messages; many are estimated, and the number marked ~. The flags choose as in: sqlq error ls. With a choice
that nothing fits it prints 0, and the exit code is 5.`,
		Example: `  sqlq error count --since 1h
  sqlq error count --queue billing --error /timeout/ -o json`,
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			needsOperatorFor(c, &o.filter)
			return runErrorCount(c.Context(), e, &o)
		},
	}
	choiceFlags(e, c, &o.filter, failedMessages)
	return c
}

func runErrorCount(ctx context.Context, e *env, o *errorCountOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := db.Failed.Count(ctx, o.filter)
	if err != nil {
		return err
	}
	if err := e.printOne(n, func(w io.Writer) { fmt.Fprintln(w, count(n)) }); err != nil || n.N > 0 || n.Estimated {
		return err
	}
	return noFailed(ctx, e, db, o.filter)
}

// errorGroupsOptions are the flags of `sqlq error groups`.
type errorGroupsOptions struct {
	filter ops.Filter
	by     ops.GroupBy
}

func newErrorGroupsCommand(e *env) *cobra.Command {
	o := errorGroupsOptions{by: ops.ByFault}
	c := &cobra.Command{
		Use:   "groups",
		Short: "Count failed messages by fault, the most frequent first",
		Long: `Count failed messages by fault, the most frequent first. Messages of one type that failed with the same error, but for
numbers and ids in its text, are one group; --group takes it in every other command. --by counts them by something else.
Where there are millions, counts are estimated and marked ~. The flags choose as in: sqlq error ls.`,
		Example: `  sqlq error groups --since 1h
  sqlq error groups --by queue
  sqlq error groups --queue billing --order newest -o json | jq '.[0].group'`,
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			needsOperatorFor(c, &o.filter)
			return runErrorGroups(c.Context(), e, &o)
		},
	}
	choiceFlags(e, c, &o.filter, failedMessages)
	c.Flags().Var(groupBy{&o.by}, "by", "what the messages of a group share: fault, type, queue, host or error-type")
	_ = c.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(groupBys(), cobra.ShellCompDirectiveNoFileComp))
	c.Flags().Var(groupOrder{&o.filter.Order}, "order", "count: the largest first, newest: that which failed last, or oldest: that which failed first")
	_ = c.RegisterFlagCompletionFunc("order", cobra.FixedCompletions([]string{"count", "newest", "oldest"}, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 50, "list at most so many groups; 0: all")
	return watchable(e, c)
}

func runErrorGroups(ctx context.Context, e *env, o *errorGroupsOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	groups, err := db.Failed.GroupsBy(ctx, o.by, o.filter)
	if err != nil {
		return err
	}
	key := "group"
	if o.by != ops.ByFault {
		key = "by " + string(o.by)
	}
	t := &term.Table{Columns: []term.Column{{Name: key}, {Name: "count", Right: true}, {Name: "queue", Cut: true}, {Name: "type", Cut: true}, {Name: "first", Spare: 1},
		{Name: "last"}, {Name: "status", Spare: 2}, {Name: "error", Cut: true}}}
	for _, g := range groups {
		t.Add(g.Group, count(g.Count), strings.Join(g.Queues, ","), strings.Join(g.Types, ","), e.when(g.FirstAt), e.when(g.LastAt), g.Status(), g.Error)
	}
	if err := printList(e, groups, t); err != nil || len(groups) > 0 {
		return err
	}
	return noFailed(ctx, e, db, o.filter)
}
