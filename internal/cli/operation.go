package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newOperationCommand(e *env) *cobra.Command {
	return noun("operation", "See who changed what; resume and cancel what was interrupted",
		newOperationListCommand(e), newOperationShowCommand(e), newOperationResumeCommand(e), newOperationCancelCommand(e))
}

// operationListOptions are the flags of `sqlq operation ls`.
type operationListOptions struct {
	filter ops.OperationFilter
	paging
}

func newOperationListCommand(e *env) *cobra.Command {
	var o operationListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List what operators changed, the last first",
		Long: `List what operators changed, the last first. An operation that runs and has done nothing for 15 seconds is stalled: its
process is dead or frozen, and it can be resumed.`,
		Example:     "  sqlq operation ls\n  sqlq operation ls --status interrupted -o jsonl | jq .operation\n  sqlq operation ls --queue billing --user ann --since 1d",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runOperationList(c.Context(), e, &o)
		},
	}
	c.Flags().Var(operationStatus{&o.filter.Status}, "status", "running, stalled, done, interrupted or cancelled")
	c.Flags().StringVar(&o.filter.Kind, "kind", "", "those of this kind, such as replay or purge")
	c.Flags().StringVar(&o.filter.Queue, "queue", "", "those that were about this queue")
	c.Flags().StringVar(&o.filter.User, "user", "", "those of this user, or database role")
	c.Flags().Var(moment{&o.filter.Since}, "since", "begun then or later: a duration ago such as 2h, or a time")
	c.Flags().Var(moment{&o.filter.Until}, "until", "begun before then")
	o.paging.flag(c)
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 50, "list at most so many")
	_ = c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(ops.OperationKinds, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(operationStatuses, cobra.ShellCompDirectiveNoFileComp))
	return watchable(e, c)
}

func runOperationList(ctx context.Context, e *env, o *operationListOptions) error {
	if o.filter.Limit < 1 {
		return usageErrorf("--limit %d: it takes a number from 1", o.filter.Limit)
	}
	if o.filter.Kind != "" && !slices.Contains(ops.OperationKinds, o.filter.Kind) {
		return usageErrorf("--kind %s: there are %s", o.filter.Kind, strings.Join(ops.OperationKinds, ", "))
	}
	return runList(ctx, e, o.filter.Limit, o.paging, func(db *database, limit int, opts ops.PageOptions) (ops.Page[ops.Operation], error) {
		wanted := o.filter
		wanted.Limit = limit
		return db.Operations.Page(ctx, wanted, opts)
	}, printOperations, func(db *database) error {
		return noneFound(ctx, e, db, o.filter != (ops.OperationFilter{Limit: o.filter.Limit}), "", "no such operations")
	})
}

func printOperations(e *env, operations []ops.Operation) error {
	t := &term.Table{Columns: []term.Column{{Name: "operation", Right: true}, {Name: "began"}, {Name: "kind"}, {Name: "status"}, {Name: "done", Right: true},
		{Name: "who", Cut: true, Spare: 1}, {Name: "what", Cut: true}, {Name: "reason", Cut: true, Spare: 2}}}
	for _, op := range operations {
		t.Add(fmt.Sprint(op.ID), e.when(op.BeganAt), op.Kind, string(op.Status), doneText(op), who(op), filterText(op), op.Reason)
	}
	return printList(e, operations, t)
}

// operationShowOptions are the arguments of `sqlq operation show`.
type operationShowOptions struct {
	operation string
}

func newOperationShowCommand(e *env) *cobra.Command {
	var o operationShowOptions
	return &cobra.Command{
		Use:               "show OPERATION",
		Short:             "Show all that is known of an operation",
		ValidArgsFunction: onlyFirst(completeOperations(e, func(ops.Operation) bool { return true })),
		Example:           "  sqlq operation show 7\n  sqlq operation show 7 -o json | jq .filter",
		Args:              exactly("OPERATION"),
		Annotations:       map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, args []string) error {
			o.operation = args[0]
			return runOperationShow(c.Context(), e, &o)
		},
	}
}

func runOperationShow(ctx context.Context, e *env, o *operationShowOptions) error {
	id, err := operationNumber(o.operation)
	if err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	op, err := db.Operations.Show(ctx, id)
	if err != nil {
		return nothingIfNoOperation(err)
	}
	return e.printOne(op, func(w io.Writer) { writeOperation(e, w, op) })
}

func writeOperation(e *env, w io.Writer, op ops.Operation) {
	field(w, "operation", fmt.Sprint(op.ID))
	field(w, "kind", op.Kind)
	field(w, "status", string(op.Status))
	field(w, "done", doneText(op))
	field(w, "queue", op.Queue)
	field(w, "what", filterText(op))
	field(w, "role", op.Role)
	field(w, "user", op.OSUser)
	field(w, "host", op.Host)
	field(w, "reason", op.Reason)
	field(w, "began", e.whenInFull(op.BeganAt))
	field(w, "last active", e.whenInFull(op.UpdatedAt))
	if op.EndedAt != nil {
		field(w, "ended", e.whenInFull(*op.EndedAt))
	}
	block(w, "error", op.Error)
	if op.Resumable() {
		block(w, "go on with", fmt.Sprintf("sqlq operation resume %d", op.ID))
	}
}

// operationResumeOptions are the arguments and flags of `sqlq operation resume`.
type operationResumeOptions struct {
	change
	operation string
}

func newOperationResumeCommand(e *env) *cobra.Command {
	var o operationResumeOptions
	c := &cobra.Command{
		Use:   "resume OPERATION",
		Short: "Go on with an operation that was interrupted",
		Long: `Go on with an operation that was interrupted, or whose process has died: with its filter, snapshot, limit and rate, after the
last message that it changed. What goes by batches can be resumed: a replay, archive, unarchive or delete of failed messages,
a move or purge of a queue, and a cancel or reschedule of delayed messages.`,
		ValidArgsFunction: onlyFirst(completeOperations(e, ops.Operation.Resumable)),
		Example:           "  sqlq operation resume 7\n  sqlq operation resume 7 --dry-run",
		Args:              exactly("OPERATION"),
		RunE: func(c *cobra.Command, args []string) error {
			o.operation = args[0]
			return runOperationResume(c.Context(), e, &o)
		},
	}
	o.flags(c, asksNever)
	return c
}

func runOperationResume(ctx context.Context, e *env, o *operationResumeOptions) error {
	id, err := operationNumber(o.operation)
	if err != nil {
		return err
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	before, err := db.Operations.PreviewResume(ctx, id)
	if err != nil {
		return nothingIfNoOperation(err)
	}
	if o.dryRun {
		return e.done(wouldChange{before}, "would go on with the %s of %s: %s done", before.Kind, filterText(before), doneText(before))
	}
	line, began := e.progress(), time.Now()
	op, err := db.Operations.Resume(ctx, id, func(p ops.Progress) {
		line.Show("%s", progressText(p.Kind, p, before.Done, time.Since(began)))
	})
	line.End()
	if err != nil && op.Done == before.Done {
		return err
	}
	return errors.Join(e.done(op, "operation %d: %s of %s is %s, %s of them now", id, op.Kind, messagesDone(op), op.Status, fmt.Sprint(op.Done-before.Done)), err)
}

// operationCancelOptions are the arguments and flags of `sqlq operation cancel`.
type operationCancelOptions struct {
	change
	operation string
}

func newOperationCancelCommand(e *env) *cobra.Command {
	var o operationCancelOptions
	c := &cobra.Command{
		Use:   "cancel OPERATION",
		Short: "End an operation that runs or was interrupted",
		Long: `End an operation: one that runs stops before its next batch, one that was interrupted cannot be resumed any more. What it
has done stays done. It asks first, on a terminal.`,
		ValidArgsFunction: onlyFirst(completeOperations(e, ops.Operation.Cancellable)),
		Example:           "  sqlq operation cancel 7\n  sqlq operation cancel 7 --reason 'the receiver is still broken'",
		Args:              exactly("OPERATION"),
		RunE: func(c *cobra.Command, args []string) error {
			o.operation = args[0]
			return runOperationCancel(c.Context(), e, &o)
		},
	}
	o.flags(c, asksOnTerminal)
	o.reasonFlag(c)
	return c
}

func runOperationCancel(ctx context.Context, e *env, o *operationCancelOptions) error {
	id, err := operationNumber(o.operation)
	if err != nil {
		return err
	}
	db, err := e.connectToChange(ctx, o.change)
	if err != nil {
		return err
	}
	defer db.Close()
	op, err := db.Operations.PreviewCancel(ctx, id)
	if err != nil {
		return nothingIfNoOperation(err)
	}
	if o.dryRun {
		return e.done(wouldChange{op}, "would cancel the %s, which is %s: %s done", op.Kind, op.Status, doneText(op))
	}
	what := fmt.Sprintf("end operation %d, the %s of %s, which is %s: %s done", id, op.Kind, filterText(op), op.Status, doneText(op))
	if err := e.confirmOnTerminal(ctx, o.change, what); err != nil {
		return err
	}
	op, err = db.Operations.Cancel(ctx, id)
	if err != nil {
		return nothingIfNoOperation(err)
	}
	return e.done(op, "cancelled operation %d: %s of %s", id, op.Kind, messagesDone(op))
}

func operationNumber(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, usageErrorf("%q is no number of an operation; list them with: sqlq operation ls", text)
	}
	return id, nil
}

func nothingIfNoOperation(err error) error {
	var none *ops.NoOperationError
	if errors.As(err, &none) {
		return errNothing("%w", err)
	}
	return err
}

// doneText writes how many messages of how many an operation has changed.
func doneText(op ops.Operation) string {
	if op.Wanted == nil {
		return fmt.Sprint(op.Done)
	}
	return fmt.Sprintf("%d of %d", op.Done, *op.Wanted)
}

func messagesDone(op ops.Operation) string {
	if op.Wanted == nil {
		return plural(op.Done, "message")
	}
	return fmt.Sprintf("%d of %s", op.Done, plural(*op.Wanted, "message"))
}

// who writes who made an operation: the database's role, and where that says more, the user and the host.
func who(op ops.Operation) string {
	if op.OSUser == "" && op.Host == "" {
		return op.Role
	}
	return op.Role + " (" + op.OSUser + "@" + op.Host + ")"
}

// filterText writes what an operation was told, in a line: the queue, and the conditions by name.
func filterText(op ops.Operation) string {
	var conditions map[string]json.RawMessage
	_ = json.Unmarshal(op.Filter, &conditions)
	var parts []string
	for name, raw := range conditions {
		value := string(raw)
		var text string
		if json.Unmarshal(raw, &text) == nil {
			value = text
		}
		if name == "status" && value == string(ops.StatusFailed) || name == "first" || name == "last" {
			continue // it goes without saying, or says nothing to people
		}
		if value == "true" {
			parts = append(parts, name)
			continue
		}
		parts = append(parts, name+"="+value)
	}
	slices.Sort(parts)
	switch {
	case op.Queue == "":
	case op.Kind == "replay" || op.Kind == "move" || op.Kind == "import":
		parts = append(parts, "→ "+op.Queue)
	default:
		parts = append([]string{op.Queue}, parts...)
	}
	return strings.Join(parts, " ")
}

// wouldChange is an operation that a dry run has looked at: in JSON it says so.
type wouldChange struct{ ops.Operation }

func (w wouldChange) MarshalJSON() ([]byte, error) {
	text, err := w.Operation.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return append(text[:len(text)-1], `,"dry_run":true}`...), nil
}

var operationStatuses = []string{"running", "stalled", "done", "interrupted", "cancelled"}

// operationStatus is a flag.
type operationStatus struct{ *ops.OperationStatus }

func (s operationStatus) String() string { return "" }
func (s operationStatus) Type() string   { return "STATUS" }
func (s operationStatus) Set(text string) error {
	if !slices.Contains(operationStatuses, text) {
		return errors.New("there are " + strings.Join(operationStatuses, ", "))
	}
	*s.OperationStatus = ops.OperationStatus(text)
	return nil
}
