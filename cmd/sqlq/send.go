package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func (a *app) sendCommand() *cobra.Command {
	var m ops.Outgoing
	var text string
	var headers []string
	c := &cobra.Command{
		Use:   "send QUEUE --type TYPE",
		Short: "Send JSON from standard input to a queue",
		Long: `Send messages to a queue, whose bodies are JSON from standard input: one document, over as many lines as it likes, or JSON
lines, each a message. All are sent in one transaction: a line that is not JSON, and none is sent. Prints their ids.`,
		Example: `  echo '{"order": 17}' | sqlq send sales --type sales.PlaceOrder
  sqlq send sales --type sales.PlaceOrder --header tenant=north < orders.jsonl
  sqlq send sales --type sales.Remind --delay 90m --body '{"order": 17}'`,
		Args: exactly("QUEUE"),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if m.Headers, err = parseHeaders(headers); err != nil {
				return err
			}
			if m.Delay < 0 {
				return usageErrorf("--delay %s: it is counted from now on", m.Delay)
			}
			var from io.Reader = strings.NewReader(text)
			source := "--body"
			if !c.Flags().Changed("body") {
				from, source = a.in, "standard input"
				if a.inTerminal && a.errTerminal {
					a.say("reading JSON from the terminal; Ctrl-D ends it")
				}
			}
			bodies, err := ops.ReadBodies(from)
			if err != nil {
				return fmt.Errorf("%w; nothing was sent", err)
			}
			if len(bodies) == 0 {
				return errors.New("nothing was sent: there is no JSON in " + source)
			}
			if m.ID != "" && len(bodies) > 1 {
				return usageErrorf("--id is for one message, and there are %d", len(bodies))
			}
			db, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			ids, err := db.Send(c.Context(), args[0], m, bodies...)
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
			if a.format != formatTable {
				return printList(a, views, nil)
			}
			_, err = io.WriteString(a.out, strings.Join(ids, "\n")+"\n")
			return err
		},
	}
	c.Flags().StringVar(&m.Type, "type", "", "message type (needed)")
	_ = c.MarkFlagRequired("type")
	c.Flags().StringArrayVar(&headers, "header", nil, "a header, name=value; several times for several")
	c.Flags().DurationVar(&m.Delay, "delay", 0*time.Second, "ready only after this time, such as 90s or 36h")
	c.Flags().StringVar(&m.ID, "id", "", "message id, a UUID (default a new one)")
	c.Flags().StringVar(&text, "body", "", "the body, instead of standard input")
	return c
}

func parseHeaders(given []string) (map[string]string, error) {
	headers := map[string]string{}
	for _, h := range given {
		name, value, found := strings.Cut(h, "=")
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
