package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newDelayedCommand(e *env) *cobra.Command {
	return noun("delayed", "Look at messages that wait for their time; cancel and reschedule them",
		newDelayedListCommand(e), newDelayedShowCommand(e), newDelayedCancelCommand(e), newDelayedRescheduleCommand(e), newDelayedNowCommand(e))
}

// delayedListOptions are the flags of `sqlq delayed ls`.
type delayedListOptions struct {
	filter ops.Filter
	paging
}

func newDelayedListCommand(e *env) *cobra.Command {
	var o delayedListOptions
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List delayed messages, those that are due first at the front",
		Long: `List delayed messages, those that are due first at the front: those that their sender deferred (delay) and those whose
last attempt failed and that will be tried again, or whose handler gave them back (retry); the error says why.

Times are found by an index. Everything else looks at one message after the other, in the order of their due times.`,
		Example:     "  sqlq delayed ls --queue billing\n  sqlq delayed ls --type sales.Remind --until +1h -o jsonl | jq -r .id",
		Args:        noMoreThan(0),
		Annotations: map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, _ []string) error {
			return runDelayedList(c.Context(), e, &o)
		},
	}
	filterFlags(e, c, &o.filter, delayedMessages)
	limitFlag(c, &o.filter.Limit)
	o.paging.flag(c)
	return watchable(e, c)
}

func runDelayedList(ctx context.Context, e *env, o *delayedListOptions) error {
	if err := chosenBy(ctx, e, &o.filter, nil); err != nil {
		return err
	}
	return runList(ctx, e, o.filter.Limit, o.paging, func(db *database, limit int, opts ops.PageOptions) (ops.Page[ops.DelayedMessage], error) {
		wanted := o.filter
		wanted.Limit = limit
		return db.Delayed.Page(ctx, wanted, opts)
	}, printDelayed, func(db *database) error {
		return noneFound(ctx, e, db, !o.filter.ChoosesAll(), o.filter.Type, "no such messages among the delayed")
	})
}

func printDelayed(e *env, found []ops.DelayedMessage) error {
	t := &term.Table{Columns: []term.Column{{Name: "number", Right: true}, {Name: "due"}, {Name: "queue", Cut: true}, {Name: "type", Cut: true}, {Name: "why", Spare: 1},
		{Name: "attempts", Right: true, Spare: 2}, {Name: "error", Cut: true}}}
	for _, m := range found {
		t.Add(fmt.Sprint(m.Number), dueText(e, m), m.Queue, m.Type, string(m.Why), fmt.Sprint(m.Attempts), m.Error)
	}
	return printList(e, found, t)
}

// dueText writes when a message is due: how long it takes by the clock of the database where somebody looks, else in full.
func dueText(e *env, m ops.DelayedMessage) string {
	switch {
	case !e.outTerminal:
		return fullTime(m.DueAt)
	case m.DueIn >= 0:
		return "in " + age(m.DueIn)
	default:
		return age(-m.DueIn) + " ago"
	}
}

// delayedShowOptions are the arguments of `sqlq delayed show`.
type delayedShowOptions struct {
	name string
}

func newDelayedShowCommand(e *env) *cobra.Command {
	var o delayedShowOptions
	return &cobra.Command{
		Use:               "show NUMBER|ID",
		Short:             "Show all of a delayed message",
		Example:           "  sqlq delayed show 17\n  sqlq delayed show 0198c0de-7a00-7000-8000-000000000001 -o json | jq .body",
		Args:              exactly("NUMBER or ID"),
		ValidArgsFunction: onlyFirst(completeDelayed(e)),
		RunE: func(c *cobra.Command, args []string) error {
			o.name = args[0]
			return runDelayedShow(c.Context(), e, &o)
		},
	}
}

func runDelayedShow(ctx context.Context, e *env, o *delayedShowOptions) error {
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	m, err := db.Delayed.Show(ctx, o.name)
	if err != nil {
		return nothingDelayed(err, 0)
	}
	return e.printOne(m, func(w io.Writer) { writeDelayed(e, w, m) })
}

func writeDelayed(e *env, w io.Writer, m ops.DelayedMessage) {
	field(w, "number", fmt.Sprint(m.Number))
	field(w, "id", m.ID)
	field(w, "type", m.Type)
	field(w, "queue", m.Queue)
	field(w, "why", string(m.Why))
	due := fullTime(m.DueAt)
	if e.outTerminal {
		due += " (" + dueText(e, m) + ")"
	}
	field(w, "due", due)
	field(w, "attempts", fmt.Sprint(m.Attempts))
	field(w, "sent", e.whenInFull(m.SentAt))
	if m.ExpiresAt != nil {
		field(w, "expires", e.whenInFull(*m.ExpiresAt))
	}
	block(w, "error", m.Error)
	block(w, "headers", pretty(m.Headers))
	writeBody(w, m.Body)
}
