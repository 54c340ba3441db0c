package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// findOptions are the arguments and flags of `sqlq find`.
type findOptions struct {
	ops.FindOptions
	id string
}

func newFindCommand(e *env) *cobra.Command {
	var o findOptions
	c := &cobra.Command{
		Use:   "find ID",
		Short: "Say where a message is now",
		Long: `Say where the message of that id is now: ready in a queue, delayed, leased, failed or archived, with all its copies where
it is an event; and what operators did to it. In none of these places: it was handled, its sender's transaction did not
commit, or its time to live has passed.

Queues have no index on ids: they are looked through from their newest message on, some two million a second. A queue that
there was no time for, or that this role may not see, is told of.`,
		Example:           "  sqlq find 0198c0de-7a00-7000-8000-000000000001\n  sqlq find 0198c0de-7a00-7000-8000-000000000001 --queue billing --within 1m -o json",
		Args:              exactly("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, args []string) error {
			o.id = args[0]
			return runFind(c.Context(), e, &o)
		},
	}
	c.Flags().StringVar(&o.Queue, "queue", "", "look into this queue only")
	c.Flags().Var(duration{&o.Budget, false}, "within", "how long to look through queues; default: 3s")
	_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	return c
}

func runFind(ctx context.Context, e *env, o *findOptions) error {
	if o.Budget < 0 {
		return usageErrorf("--within %s: it takes a duration, such as 1m", o.Budget)
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	found, err := db.Find(ctx, o.id, o.FindOptions)
	if err != nil {
		return err
	}
	return errors.Join(printFound(e, found), notFound(found))
}

// notFound is the error of a message that is nowhere.
func notFound(found ops.Found) error {
	if len(found.Copies) > 0 {
		return nil
	}
	if len(found.Unlooked) > 0 {
		return errNothing("message %s was not found where could be looked", found.ID)
	}
	return errNothing("message %s is in no queue, and not delayed, leased or failed: it was handled, has expired, or was never stored", found.ID)
}

func printFound(e *env, found ops.Found) error {
	if e.format != formatTable {
		return e.printData(found)
	}
	t := &term.Table{Columns: []term.Column{{Name: "place"}, {Name: "queue", Cut: true}, {Name: "number", Right: true}, {Name: "type", Cut: true},
		{Name: "attempts", Right: true, Spare: 1}, {Name: "since or due"}, {Name: "error", Cut: true, Spare: 2}}}
	for _, m := range found.Copies {
		t.Add(string(m.Place), m.Queue, strconv.FormatInt(m.Number, 10), m.Type, fmt.Sprint(m.Attempts), e.when(m.At), m.Error)
	}
	if len(found.Copies) > 0 {
		if err := e.printTable(t); err != nil {
			return err
		}
	}
	for _, p := range found.History {
		line := fmt.Sprintf("%s  %s by %s", e.when(p.At), p.What, by(p))
		if p.Reason != "" {
			line += ": " + term.OneLine(p.Reason)
		}
		e.say("%s", line)
	}
	for _, u := range found.Unlooked {
		e.say("not looked at: %s", strings.TrimSpace(fmt.Sprintf("%s %s", u.Place, term.OneLine(u.Queue)))+": "+term.OneLine(u.Why))
	}
	return nil
}
