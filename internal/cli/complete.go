package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

const (
	completionTime = 2 * time.Second // how long a shell waits for names at most
	completions    = 50              // numbers that are offered: the newest
)

// completing is what cobra asks to complete an argument or the value of a flag.
type completing = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective)

// completeQueues completes the name of a queue.
func completeQueues(e *env) completing {
	return complete(e, func(ctx context.Context, db *database) ([]string, error) { return db.Queues.Names(ctx) })
}

// completeTypes completes a message type: those that failed or are subscribed.
func completeTypes(e *env) completing {
	return complete(e, func(ctx context.Context, db *database) ([]string, error) { return db.Routes.TypeNames(ctx) })
}

// completeFailed completes the number of a failed message: the newest that fit the flags that are found by an index.
func completeFailed(e *env, f *ops.Filter, status ops.Status) completing {
	return complete(e, func(ctx context.Context, db *database) (names []string, err error) {
		failed, err := db.Failed.List(ctx, ops.Filter{Queue: f.Queue, Type: f.Type, Group: f.Group, Status: status, Limit: completions})
		for _, m := range failed {
			names = append(names, choice(m.Number, m.Type, term.Cut(term.OneLine(m.Error), 60)))
		}
		return names, err
	})
}

// completeDelayed completes the number of a delayed message: those that are due first.
func completeDelayed(e *env) completing {
	return complete(e, func(ctx context.Context, db *database) (names []string, err error) {
		delayed, err := db.Delayed.List(ctx, ops.Filter{Limit: completions})
		for _, m := range delayed {
			names = append(names, choice(m.Number, m.Queue, m.Type, "due "+fullTime(m.DueAt)))
		}
		return names, err
	})
}

// completeLeases completes the number of a lease: those that were leased first.
func completeLeases(e *env) completing {
	return complete(e, func(ctx context.Context, db *database) (names []string, err error) {
		leases, err := db.Leases.List(ctx, ops.LeaseFilter{Limit: completions})
		for _, l := range leases {
			names = append(names, choice(l.Number, l.Queue, l.Type, fmt.Sprintf("instance %d, %s", l.Instance, l.State)))
		}
		return names, err
	})
}

// completeInstances completes the number of an instance, those included that have ended.
func completeInstances(e *env) completing {
	return complete(e, func(ctx context.Context, db *database) (names []string, err error) {
		instances, err := db.Instances.List(ctx, ops.InstanceFilter{All: true, Limit: completions})
		for _, i := range instances {
			names = append(names, choice(int64(i.ID), i.Endpoint, i.Host, string(i.State)))
		}
		return names, err
	})
}

// completeOperations completes the number of an operation, of those among the last that fit.
func completeOperations(e *env, fits func(ops.Operation) bool) completing {
	return complete(e, func(ctx context.Context, db *database) (names []string, err error) {
		operations, err := db.Operations.List(ctx, ops.OperationFilter{Limit: completions})
		for _, op := range operations {
			if fits(op) {
				names = append(names, choice(op.ID, op.Kind, string(op.Status), filterText(op)))
			}
		}
		return names, err
	})
}

// completeRoles completes the name of a database role.
func completeRoles(e *env) completing {
	return complete(e, func(ctx context.Context, db *database) ([]string, error) { return db.Roles.Names(ctx) })
}

// onlyFirst completes the first argument, and no other.
func onlyFirst(f completing) completing {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return f(c, args, begun)
	}
}

// several completes any number of arguments, each with what does not stand there yet.
func several(f completing) completing {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		found, directive := f(c, args, begun)
		return slices.DeleteFunc(found, func(choice string) bool {
			bare, _, _ := strings.Cut(choice, "\t")
			return slices.Contains(args, bare)
		}), directive
	}
}

// choice is a number with what a shell shows beside it.
func choice(number int64, words ...string) string {
	return fmt.Sprintf("%d\t%s", number, term.OneLine(strings.Join(words, " ")))
}

// complete completes with the names that begin so. Without a database there are none, and nothing is said.
func complete(e *env, names func(context.Context, *database) ([]string, error)) completing {
	return func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(orBackground(c.Context())), completionTime)
		defer cancel()
		db, err := e.connect(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer db.Close()
		all, _ := names(ctx, db)
		var fitting []string
		for _, name := range all {
			if strings.HasPrefix(name, begun) {
				fitting = append(fitting, name)
			}
		}
		return fitting, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}
