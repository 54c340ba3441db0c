package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newRootCommand(e *env) *cobra.Command {
	root := noun("sqlq", "Messaging on the PostgreSQL you already run")
	root.Long = "sqlq looks at queues and failed messages and mends them, sends messages, migrates the schema,\nand starts a throw-away server to try things on."
	root.SilenceErrors = true // run prints them
	root.SilenceUsage = true
	root.CompletionOptions.DisableDefaultCmd = true // there is one of our own
	root.Version = programVersion()
	root.SetVersionTemplate(versionText())
	root.SetFlagErrorFunc(flagError)
	root.SetHelpTemplate(helpTemplate(e))
	root.SetUsageTemplate(usageTemplate(e))
	root.SetIn(e.in)
	root.SetOut(e.out)
	root.SetErr(e.err)
	in := func(group, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: group, Title: title})
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in("try", "Try it:", newDemoCommand(e), newDevCommand(e), newBenchCommand(e))
	in("operate", "Look and mend:", newTopCommand(e), newQueueCommand(e), newErrorCommand(e), newDelayedCommand(e), newLeaseCommand(e),
		newFindCommand(e), newSubscriptionCommand(e), newRouteCommand(e), newInstanceCommand(e), newOperationCommand(e), newDoctorCommand(e))
	in("send", "Send:", newSendCommand(e), newPublishCommand(e))
	in("set-up", "Set up:", newMigrateCommand(e), newGrantCommand(e), newRevokeCommand(e), newConfigCommand(e), newCompletionCommand(e), newManCommand(e), newVersionCommand(e), newHelpCommand())
	root.SetHelpCommand(root.Commands()[len(root.Commands())-1])

	flags := root.PersistentFlags()
	flags.StringVar(&e.databaseURL, "database-url", "", "database to work on, as URL or key=value (default $SQLQ_DATABASE_URL, $DATABASE_URL, then PG*)")
	flags.StringVar(&e.schema, "schema", envOr("SQLQ_SCHEMA", defaultSchema), "schema that holds sqlq's tables; $SQLQ_SCHEMA")
	flags.VarP(&e.format, "output", "o", "output format: table, json (one document), jsonl (an object a line) or yaml")
	flags.Var(duration{&e.timeout, false}, "timeout", "give up after this time, such as 30s (default never)")
	flags.Var(&e.color, "color", "auto (on a terminal, unless $NO_COLOR is set), always or never")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "jsonl", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("color", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))

	noteBeginning(e, root)
	return root
}

// noteBeginning lets run tell a wrong command line, whose error comes from cobra, from a command that failed.
func noteBeginning(e *env, c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			e.began = true
			if e.timeout > 0 {
				ctx, cancel := context.WithTimeout(c.Context(), e.timeout)
				defer cancel()
				c.SetContext(ctx)
			}
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		noteBeginning(e, sub)
	}
}

// noun returns a command that only holds others. Without one it prints its help.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:                        name,
		Short:                      short,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
		Args:                       noCommand,
		SuggestionsMinimumDistance: 2,
	}
	c.AddCommand(verbs...)
	return c
}

// noCommand refuses what is left of a command line when no command of that name was found.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], c.CommandPath())
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; there is " + strings.Join(near, ", ")
	}
	return errors.New(text)
}

// flagError adds to the error of a flag that there is not those that may have been meant.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return err
	}
	named := &cobra.Command{SuggestionsMinimumDistance: 2} // cobra knows what is like a command
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			named.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	near := named.SuggestionsFor(unknown.GetSpecifiedName())
	if len(near) == 0 {
		return err
	}
	return fmt.Errorf("%w; there is --%s", err, strings.Join(near, ", --"))
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
