package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

func newRouteCommand(e *env) *cobra.Command {
	return noun("route", "Explain where messages of a type go", newRouteExplainCommand(e))
}

// routeExplainOptions are the arguments of `sqlq route explain`.
type routeExplainOptions struct {
	messageType string
}

func newRouteExplainCommand(e *env) *cobra.Command {
	var o routeExplainOptions
	return &cobra.Command{
		Use:   "explain TYPE",
		Short: "Explain where messages of a type go, and why",
		Long: `Explain where messages of a type go, as far as the database knows.

An event that is published goes to the queues that are subscribed to it. A command goes where the program that sends it
says: by its Routes, by To, or to an endpoint of the same process. That is not in the database; what is there are the
queues in which such messages wait or failed, and a queue that is named like the beginning of the type.`,
		Example:           "  sqlq route explain sales.OrderPlaced\n  sqlq route explain sales.PlaceOrder -o json | jq .subscribed",
		Args:              exactly("TYPE"),
		ValidArgsFunction: completeTypes(e),
		Annotations:       map[string]string{needs: "viewer"},
		RunE: func(c *cobra.Command, args []string) error {
			o.messageType = args[0]
			return runRouteExplain(c.Context(), e, &o)
		},
	}
}

func runRouteExplain(ctx context.Context, e *env, o *routeExplainOptions) error {
	db, err := e.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := db.Routes.Explain(ctx, o.messageType)
	if err != nil {
		return err
	}
	return e.printOne(r, func(w io.Writer) { writeRoute(e, w, r) })
}

func writeRoute(e *env, w io.Writer, r ops.Route) {
	line := func(format string, args ...any) { fmt.Fprintf(w, "%s\n", term.Visible(fmt.Sprintf(format, args...))) }
	running := func(queue string) string {
		if n := r.Endpoints[queue]; n > 0 {
			return plural(int64(n), "instance") + " running"
		}
		return "no instance running"
	}
	if len(r.Subscribers) > 0 {
		line("Published as an event, %s goes to %s:", r.Type, plural(int64(len(r.Subscribers)), "subscribed queue"))
		for _, s := range r.Subscribers {
			line("  %s: subscribed since %s; %s", s.Queue, e.when(s.Since), running(s.Queue))
		}
	} else {
		line("Published as an event, %s goes nowhere: no queue is subscribed to it, and nothing is stored.", r.Type)
	}
	line("\nSent as a command, it goes where the sending program says (its Routes, To, or an endpoint of the same process).\nThe database does not know that. What it does know:")
	known := false
	for _, s := range r.Waiting {
		known = true
		line("  %s: %d of them among the newest messages of the queue, the last sent %s; %s", s.Queue, s.N, e.when(s.LastAt), running(s.Queue))
	}
	for _, s := range r.Failed {
		known = true
		line("  %s: %d of them failed lately, the last %s; %s", s.Queue, s.N, e.when(s.LastAt), running(s.Queue))
	}
	if r.Named != "" {
		known = true
		line("  %s: a queue whose name the type begins with; %s", r.Named, running(r.Named))
	}
	if !known {
		line("  nothing: no queue bears a name like it, and none of its messages wait or have failed")
	}
}
