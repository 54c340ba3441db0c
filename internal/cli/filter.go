package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// filterFlags gives a command the flags that choose messages. They are the same for every command and everything that can be
// chosen from; of says what that is: failed messages have all of them, delayed messages no group and status, and those
// of a queue besides no error and no queue, which is named apart.
func filterFlags(e *env, c *cobra.Command, f *ops.Filter, of source) {
	choiceFlags(e, c, f, of)
	c.Flags().Var(order{&f.Order}, "order", "newest or oldest first")
	_ = c.RegisterFlagCompletionFunc("order", cobra.FixedCompletions([]string{"newest", "oldest"}, cobra.ShellCompDirectiveNoFileComp))
}

// choiceFlags is filterFlags without the order.
func choiceFlags(e *env, c *cobra.Command, f *ops.Filter, of source) {
	flags := c.Flags()
	flags.Var(moment{&f.Since}, "since", "those that "+of.happened()+" then or later: 90m or 2d ago, or a time such as 2026-03-01T15:04")
	flags.Var(moment{&f.Until}, "until", "those that "+of.happened()+" before then")
	flags.StringVar(&f.Type, "type", "", "those of this message type")
	flags.Var(headers{&f.Headers}, "header", "those with this header, as `NAME=VALUE`; several: all of them")
	flags.StringVar(&f.Body, "body", "", "those whose JSON body fits this `JSONPATH`, such as '$.amount > 100'")
	flags.Var(attempts{&f.Attempts}, "attempts", "those with so many attempts: 3, 3.., ..5, 3..5, >2 or <=4")
	flags.StringSliceVar(&f.Names, "id", nil, "those with this id or number; several, or - for one a line from standard input")
	if of != readyMessages {
		flags.StringVar(&f.Queue, "queue", "", "those of this queue")
		flags.StringVar(&f.Error, "error", "", "those whose error contains this text, or matches this /regular expression/")
		_ = c.RegisterFlagCompletionFunc("queue", completeQueues(e))
	}
	if of == failedMessages {
		flags.StringVar(&f.Group, "group", "", "those of this group: failures of one fault have the same")
		flags.Var(status{&f.Status}, "status", "failed, archived or any")
		_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"failed", "archived", "any"}, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = c.RegisterFlagCompletionFunc("type", completeTypes(e))
}

// source is what a filter chooses from.
type source int

const (
	failedMessages source = iota
	delayedMessages
	readyMessages
)

// happened says what a filter's times are those of.
func (s source) happened() string { return [...]string{"failed", "are due", "were sent"}[s] }

// chosenBy completes a filter with the names that stand on the command line, and those that --id - reads.
func chosenBy(ctx context.Context, e *env, f *ops.Filter, names []string) error {
	if err := checkLimit(f.Limit); err != nil {
		return err
	}
	all := append([]string{}, names...)
	for _, name := range f.Names {
		if name != "-" {
			all = append(all, name)
			continue
		}
		lines := bufio.NewScanner(e.reading(ctx, "ids, one a line,"))
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" {
				all = append(all, line)
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read ids from standard input: %w", err)
		}
		if len(all) == 0 {
			return errNothing("no ids on standard input")
		}
	}
	f.Names = all
	return nil
}
