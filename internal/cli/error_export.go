package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// errorExportOptions are the arguments and flags of `sqlq error export`.
type errorExportOptions struct {
	names  []string
	filter ops.Filter
}

func newErrorExportCommand(e *env) *cobra.Command {
	var o errorExportOptions
	c := &cobra.Command{
		Use:   "export [NUMBER|ID]...",
		Short: "Write failed messages as JSON lines, with all that was kept of them",
		Long: `Write failed messages to standard output, a JSON object a line, with headers, body and all that was kept of the failure.
They stay where they are. sqlq queue import reads the lines. A body that is no JSON is in base64, as body_encoding says.`,
		Example: `  sqlq error export --group 5f2ab81c02d9e6a4 > failed.jsonl
  sqlq error export --queue billing --since 1d | jq -r .body.customer | sort | uniq -c`,
		ValidArgsFunction: several(completeFailed(e, &o.filter, ops.StatusFailed)),
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return runErrorExport(c.Context(), e, &o)
		},
	}
	filterFlags(e, c, &o.filter, failedMessages)
	c.Flags().IntVarP(&o.filter.Limit, "limit", "n", 0, "export at most so many; 0: all that are chosen")
	return c
}

func runErrorExport(ctx context.Context, e *env, o *errorExportOptions) error {
	if e.format == formatJSON || e.format == formatYAML {
		return usageErrorf("-o %s: an export is JSON lines", e.format)
	}
	if err := chosenBy(ctx, e, &o.filter, o.names); err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	e.format = formatJSONL
	found := 0
	p := e.progress()
	err = db.Failed.Each(ctx, o.filter, ops.EachOptions{Whole: true, Progress: looking(p, &found)}, func(m ops.FailedMessage) error {
		if e.outTerminal {
			p.End()
		}
		found++
		return e.printData(m)
	})
	p.End()
	switch {
	case err != nil && found > 0:
		return fmt.Errorf("%s written, then: %w", plural(int64(found), "failed message"), err)
	case err != nil:
		return err
	case found == 0:
		return noFailed(ctx, e, db, o.filter)
	}
	e.say("exported %s", plural(int64(found), "failed message"))
	return nil
}
