package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTime bounds how long a shell waits for names.
const completionTime = 2 * time.Second

// completeQueues completes the name of a queue.
func (a *app) completeQueues(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.complete(c, begun, (*database).QueueNames)
}

// completeTypes completes a message type: those that failed or are subscribed.
func (a *app) completeTypes(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.complete(c, begun, (*database).TypeNames)
}

// complete returns the names that begin so. Without a database there are none, and nothing is said.
func (a *app) complete(c *cobra.Command, begun string, names func(*database, context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(orBackground(c.Context())), completionTime)
	defer cancel()
	db, err := a.connect(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer db.Close()
	all, _ := names(db, ctx)
	var fitting []string
	for _, name := range all {
		if strings.HasPrefix(name, begun) {
			fitting = append(fitting, name)
		}
	}
	return fitting, cobra.ShellCompDirectiveNoFileComp
}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}
