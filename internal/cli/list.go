package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
)

// runList lists what read finds, up to a limit, and says where there is more. Where there is nothing none says so.
func runList[T any](ctx context.Context, e *env, limit int, read func(db *database, limit int) ([]T, error), print func(*env, []T) error, none func(db *database) error) error {
	if err := checkLimit(limit); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	found, err := read(db, oneMore(limit))
	if err != nil {
		return err
	}
	if err := print(e, upTo(e, limit, found)); err != nil || len(found) > 0 {
		return err
	}
	return none(db)
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

// oneMore is what a list asks for, to see whether there are more than its limit.
func oneMore(limit int) int {
	if limit == 0 {
		return 0
	}
	return limit + 1
}

// upTo leaves out what a list asked for beyond its limit, and says that there is more.
func upTo[T any](e *env, limit int, found []T) []T {
	if limit == 0 || len(found) <= limit {
		return found
	}
	sayMore(e, limit)
	return found[:limit]
}

func sayMore(e *env, limit int) {
	e.say("there are more than these %d; --limit says how many to list", limit)
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
