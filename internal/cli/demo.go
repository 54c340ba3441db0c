package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/demo"
	"github.com/sqlq/sqlq/internal/term"
)

// demoOptions are the flags of `sqlq demo`.
type demoOptions struct {
	sabotage    string
	listenURL   string
	verbose     bool
	schemaGiven bool // which is refused
}

func newDemoCommand(e *env) *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show what sqlq does: a shop's orders on a throw-away PostgreSQL",
		Long: `Send a few hundred orders through a shop of several services, on a throw-away PostgreSQL: a flood, a service that is
down, one with a bug, failed messages and their replay, a service that comes late. At the end an audit in SQL compares
the orders with the services' tables. The exit code is 1 when one is lost or duplicated.

The environment's database is not touched. With --database-url the demo uses that one, in schemas of its own, sqlq_demo
and sqlq_demo_shop, which it removes at the end.`,
		Example: "  sqlq demo\n  sqlq demo -o json\n  sqlq demo --sabotage loss",
		Args:    noMoreThan(0),
		RunE: func(c *cobra.Command, _ []string) error {
			o.schemaGiven = c.Flags().Changed("schema")
			return runDemo(c.Context(), e, &o)
		},
	}
	c.Flags().StringVar(&o.sabotage, "sabotage", "", "plant a fault before the audit, to see that it notices: loss or duplicate")
	c.Flags().StringVar(&o.listenURL, "listen-url", "", "URL of the same database past a transaction pooler, if --database-url goes through one")
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "print what the library logs, on standard error")
	return c
}

func runDemo(ctx context.Context, e *env, o *demoOptions) error {
	shop := demo.Options{DatabaseURL: e.databaseURL, ListenURL: o.listenURL, Notices: e.err, Sabotage: demo.Sabotage(o.sabotage)}
	switch shop.Sabotage {
	case "", demo.SabotageLoss, demo.SabotageDuplicate:
	default:
		return usageErrorf("--sabotage %q: there are loss and duplicate", o.sabotage)
	}
	if o.schemaGiven {
		return usageErrorf("sqlq demo has a schema of its own: leave --schema out")
	}
	if o.listenURL != "" && e.databaseURL == "" {
		return usageErrorf("--listen-url leads past a pooler that --database-url goes through: give that too")
	}
	if e.databaseURL == "" {
		ignorePostgresVariables()
	} else {
		db, err := e.connectAnySchema(ctx) // for its error and exit code
		if err != nil {
			return err
		}
		db.Close()
	}
	if o.verbose {
		shop.Log = slog.New(slog.NewTextHandler(e.err, nil))
	}
	if e.format == formatTable {
		shop.Out, shop.Width = e.out, e.width
		shop.Terminal = e.outTerminal && !term.Dumb()
		shop.Palette = e.palette()
	}
	result, err := demo.Run(ctx, shop)
	if e.format != formatTable && (err == nil || errors.Is(err, demo.ErrAudit)) {
		err = errors.Join(err, e.printData(result))
	}
	return err
}

// ignorePostgresVariables takes libpq's variables out of the environment. The throw-away server's URL overrides most of
// them, but PGSERVICE, PGOPTIONS and PGTARGETSESSIONATTRS would be added to it, and make it fail.
func ignorePostgresVariables() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
}
