package cli

import (
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/demo"
	"github.com/sqlq/sqlq/internal/term"
)

func newDemoCommand(e *env) *cobra.Command {
	var sabotage, listenURL string
	var verbose bool
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
			o := demo.Options{DatabaseURL: e.databaseURL, ListenURL: listenURL, Notices: e.err, Sabotage: demo.Sabotage(sabotage)}
			switch o.Sabotage {
			case "", demo.SabotageLoss, demo.SabotageDuplicate:
			default:
				return usageErrorf("--sabotage %q: there are loss and duplicate", sabotage)
			}
			if c.Flags().Changed("schema") {
				return usageErrorf("sqlq demo has a schema of its own: leave --schema out")
			}
			if listenURL != "" && e.databaseURL == "" {
				return usageErrorf("--listen-url leads past a pooler that --database-url goes through: give that too")
			}
			if e.databaseURL == "" {
				ignorePostgresVariables()
			} else {
				db, err := e.connectAnySchema(c.Context()) // for its error and exit code
				if err != nil {
					return err
				}
				db.Close()
			}
			if verbose {
				o.Log = slog.New(slog.NewTextHandler(e.err, nil))
			}
			if e.format == formatTable {
				o.Out, o.Width = e.out, e.width
				o.Terminal = e.outTerminal && !term.Dumb()
				o.Palette = e.palette()
			}
			result, err := demo.Run(c.Context(), o)
			if e.format != formatTable && (err == nil || errors.Is(err, demo.ErrAudit)) {
				err = errors.Join(err, e.printData(result))
			}
			return err
		},
	}
	c.Flags().StringVar(&sabotage, "sabotage", "", "plant a fault before the audit, to see that it notices: loss or duplicate")
	c.Flags().StringVar(&listenURL, "listen-url", "", "URL of the same database past a transaction pooler, if --database-url goes through one")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "print what the library logs, on standard error")
	return c
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
