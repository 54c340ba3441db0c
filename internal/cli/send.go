package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

// sendOptions are the arguments and flags of `sqlq send`.
type sendOptions struct {
	outgoing
	queue string
}

func newSendCommand(e *env) *cobra.Command {
	var o sendOptions
	c := &cobra.Command{
		Use:   "send QUEUE TYPE [BODY|-]",
		Short: "Send JSON messages to a queue",
		Long: `Send messages to a queue. Their bodies are JSON: one that stands on the command line, or those that come from standard
input or a file, where each is a document over as many lines as it likes, or a line. All are sent in one transaction: one
that is not JSON, and none is sent. Prints their ids.`,
		Example: `  sqlq send sales sales.PlaceOrder '{"order": 17}'
  sqlq send sales sales.PlaceOrder --header tenant=north < orders.jsonl
  sqlq send sales sales.Remind '{"order": 17}' --delay 90m --ttl 1d`,
		Args:        o.arguments("QUEUE"),
		Annotations: map[string]string{needs: "producer"},
		ValidArgsFunction: func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return completeQueues(e)(c, args, begun)
			case 1:
				return completeTypes(e)(c, args, begun)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.queue = args[0]
			o.take(c, args[1:])
			return runSend(c.Context(), e, &o)
		},
	}
	outgoingFlags(e, c, &o.outgoing)
	return c
}

func runSend(ctx context.Context, e *env, o *sendOptions) error {
	bodies, err := readBodies(ctx, e, &o.outgoing)
	if err != nil {
		return err
	}
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	if o.dryRun {
		return wouldSend(ctx, e, db, o, bodies)
	}
	ids, err := db.Send(ctx, o.queue, o.Outgoing, bodies...)
	if err != nil {
		return err
	}
	type view struct {
		ID string `json:"id"`
	}
	views := make([]view, len(ids))
	for i, id := range ids {
		views[i].ID = id
	}
	if e.format != formatTable {
		return printList(e, views, nil)
	}
	_, err = io.WriteString(e.out, strings.Join(ids, "\n")+"\n")
	return err
}

func wouldSend(ctx context.Context, e *env, db *database, o *sendOptions, bodies []json.RawMessage) error {
	if err := db.PreviewSend(ctx, o.queue, o.Outgoing, bodies...); err != nil {
		return err
	}
	outcome := struct {
		Queue    string `json:"queue"`
		Type     string `json:"type"`
		Messages int    `json:"messages"`
		DryRun   bool   `json:"dry_run"`
	}{o.queue, o.Type, len(bodies), true}
	return e.done(outcome, "would send %s of %s to queue %s in %s", plural(int64(len(bodies)), "message"), o.Type, o.queue, db.where)
}

// outgoing is what the commands that send have in common: what the messages share, and where their bodies come from.
type outgoing struct {
	ops.Outgoing
	change
	headers  []string
	body     string
	bodyFrom string // where that stands: "the body" or "--body"; "": not on the command line
	file     string // "" and -: standard input
	lines    bool
	sources  int // how many of BODY, --body and --file are given
}

func outgoingFlags(e *env, c *cobra.Command, out *outgoing) {
	flags := c.Flags()
	flags.StringVar(&out.Type, "type", "", "message type, instead of the argument TYPE")
	flags.StringArrayVar(&out.headers, "header", nil, "a header, as `NAME=VALUE`, a NAME in double quotes being a JSON string; several times for several")
	flags.Var(duration{&out.Delay, false}, "delay", "ready only after this time, such as 90s, 36h or 2d")
	flags.Var(instant{&out.At}, "at", "ready only at this time, such as 2026-03-01T15:04; up to a minute ago is now")
	flags.Var(duration{&out.TTL, false}, "ttl", "not handled any more after this time (default never)")
	flags.StringVar(&out.ID, "id", "", "message id, a UUID (default a new one)")
	flags.StringVar(&out.body, "body", "", "the body, instead of the argument BODY")
	flags.StringVar(&out.file, "file", "", "read the bodies from this file; -: from standard input")
	flags.BoolVar(&out.lines, "lines", false, "each line is a body, none goes over several")
	out.flags(c, asksNever)
	c.MarkFlagsMutuallyExclusive("delay", "at")
	_ = c.RegisterFlagCompletionFunc("type", completeTypes(e))
}

// arguments wants the names, a TYPE unless --type says it, and perhaps a body.
func (out *outgoing) arguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		wanted := names
		if !c.Flags().Changed("type") {
			wanted = append(wanted[:len(wanted):len(wanted)], "TYPE")
		}
		if len(args) < len(wanted) {
			return fmt.Errorf("%s is missing: %s", wanted[len(args)], c.UseLine())
		}
		return noMoreThan(len(wanted)+1)(c, args)
	}
}

// take takes the arguments in: the type, unless a flag says it, and perhaps a body.
func (out *outgoing) take(c *cobra.Command, args []string) {
	given := c.Flags().Changed
	if !given("type") {
		out.Type, args = args[0], args[1:]
	}
	if len(args) > 0 {
		out.sources++
		if args[0] != "-" {
			out.body, out.bodyFrom = args[0], "the body"
		}
	}
	if given("body") {
		out.sources++
		out.bodyFrom = "--body"
	}
	if given("file") {
		out.sources++
	}
}

// readBodies returns the bodies that a command line names, and completes what the messages share.
func readBodies(ctx context.Context, e *env, out *outgoing) (bodies []json.RawMessage, err error) {
	if out.Headers, err = parseHeaders(out.headers); err != nil {
		return nil, err
	}
	if out.sources > 1 {
		return nil, usageErrorf("bodies come from one place: from BODY, --body or --file")
	}
	var from io.Reader
	var source string
	switch {
	case out.bodyFrom != "":
		from, source = strings.NewReader(out.body), out.bodyFrom
	case out.file != "" && out.file != "-":
		file, err := os.Open(out.file)
		if err != nil {
			return nil, fmt.Errorf("%w; nothing was sent", err)
		}
		defer file.Close()
		from, source = file, out.file
	default:
		from, source = e.reading(ctx, "JSON"), "standard input"
	}
	read := ops.ReadBodies
	if out.lines {
		read = ops.ReadLines
	}
	if bodies, err = read(from); err != nil {
		return nil, fmt.Errorf("%w; nothing was sent", err)
	}
	if len(bodies) == 0 {
		return nil, errors.New("nothing was sent: there is no JSON in " + source)
	}
	if out.ID != "" && len(bodies) > 1 {
		return nil, usageErrorf("--id is for one message, and there are %d", len(bodies))
	}
	return bodies, nil
}

func parseHeaders(given []string) (map[string]string, error) {
	headers := map[string]string{}
	for _, h := range given {
		name, value, found := cutHeader(h, "=")
		if !found {
			return nil, usageErrorf("--header %q: write name=value", h)
		}
		if _, twice := headers[name]; twice {
			return nil, usageErrorf("--header %q is given twice", name)
		}
		headers[name] = value
	}
	return headers, nil
}
