package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// paging says which part of a list is wanted; embedded in the options of commands.
type paging struct {
	after ops.Cursor // where it begins; "": at the beginning
}

// flag gives a list its --after.
func (p *paging) flag(c *cobra.Command) {
	c.Flags().StringVar((*string)(&p.after), "after", "", "the next page: continue behind this `PLACE`, which a longer list names")
	_ = c.RegisterFlagCompletionFunc("after", cobra.NoFileCompletions)
}

// runList lists what read finds, up to a limit, and says where there is more. Where there is nothing none says so.
func runList[T any](ctx context.Context, e *env, limit int, from paging, read func(db *database, limit int, opts ops.PageOptions) (ops.Page[T], error),
	print func(*env, []T) error, none func(db *database) error) error {
	if err := checkLimit(limit); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	var found []T
	next, err := eachPage(limit, from, func(limit int, opts ops.PageOptions) (ops.Page[T], error) { return read(db, limit, opts) },
		func(page ops.Page[T]) error {
			found = append(found, page.Items...)
			return nil
		})
	if err != nil {
		return err
	}
	sayMore(e, len(found), next)
	if err := print(e, found); err != nil || len(found) > 0 {
		return err
	}
	return none(db)
}

// pageAtOnce is how many items of a list without a limit are read at once.
const pageAtOnce = 1000

// eachPage reads a list page by page until it has as many items as the limit says, 0: all. It returns where the next page begins;
// "": there is none.
func eachPage[T any](limit int, from paging, read func(limit int, opts ops.PageOptions) (ops.Page[T], error), do func(ops.Page[T]) error) (next ops.Cursor, err error) {
	next = from.after
	for found := 0; ; {
		size := pageAtOnce
		if limit > 0 {
			size = min(size, limit-found)
		}
		page, err := read(size, ops.PageOptions{After: next})
		if err != nil {
			return "", err
		}
		if err := do(page); err != nil {
			return "", err
		}
		found, next = found+len(page.Items), page.Next
		if next == "" || limit > 0 && found >= limit && !page.Cut {
			return next, nil
		}
		if limit > 0 && found >= limit { // the search was cut off behind the last item: whether there is one more is not known
			return moreBehind(next, read)
		}
	}
}

// moreBehind returns the place of a cursor if the list has an item behind it, else "".
func moreBehind[T any](at ops.Cursor, read func(limit int, opts ops.PageOptions) (ops.Page[T], error)) (ops.Cursor, error) {
	for next := at; ; {
		page, err := read(1, ops.PageOptions{After: next})
		switch {
		case err != nil:
			return "", err
		case len(page.Items) > 0:
			return at, nil
		case page.Next == "":
			return "", nil
		}
		next = page.Next
	}
}

// limitFlag gives a list its --limit; 0 is no limit.
func limitFlag(c *cobra.Command, limit *int) {
	c.Flags().IntVarP(limit, "limit", "n", 50, "list at most so many; 0: all")
}

func checkLimit(limit int) error {
	if limit < 0 {
		return usageErrorf("--limit %d: it takes a number from 1, or 0 for all", limit)
	}
	return nil
}

// sayMore says that a list has more items than were listed, and where to go on; "": it has not.
func sayMore(e *env, listed int, next ops.Cursor) {
	if next != "" {
		e.say("there are more than these %d; --limit says how many to list; the next page: --after %s", listed, next)
	}
}

// errNoneOf is errNothing, and names the types that may have been meant where one was chosen.
func errNoneOf(ctx context.Context, db *database, messageType, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if messageType != "" {
		if near, err := db.Routes.NearTypes(ctx, messageType); err == nil && len(near) > 0 {
			text += fmt.Sprintf("; there is type %s", term.OneLine(strings.Join(near, ", ")))
		}
	}
	return errNothing("%s", text)
}

// noneFound says that a list is empty: all is well where everything was wanted, else the exit code is 5.
func noneFound(ctx context.Context, e *env, db *database, chosen bool, messageType, sentence string) error {
	if chosen {
		return errNoneOf(ctx, db, messageType, "%s", sentence)
	}
	e.say("%s", sentence)
	return nil
}
