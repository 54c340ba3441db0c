// Package cli is the operator's command line, which cmd/sqlq runs.
//
// A file is a noun: queue.go holds `sqlq queue …`, error.go `sqlq error …`. main.go runs a command and turns its error into
// an exit code, connect.go finds the database, output.go prints. There is no SQL here: what a command does is in package
// ops.
//
// Data goes to standard output, everything else to standard error.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sqlq/sqlq/internal/term"
)

// Exit codes. Others are those of the command that `sqlq dev -- COMMAND` ran.
const (
	exitError       = 1
	exitUsage       = 2
	exitFindings    = 3 // a check found something
	exitConnect     = 4 // cannot connect to the database, or not allowed to do that there
	exitNothing     = 5 // nothing matched
	exitInterrupted = 130
)

// Main runs the command line of this process and returns its exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process
	return run(ctx, os.Args[1:], osStreams())
}

// streams are where a command reads and writes, and whether somebody sits there.
type streams struct {
	in       io.Reader
	out, err io.Writer

	inTerminal, outTerminal, errTerminal bool
	width                                int // columns of the terminal that out is; 0: it is none, or unknown
}

func osStreams() streams {
	s := streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		inTerminal:  term.IsTerminal(os.Stdin),
		outTerminal: term.IsTerminal(os.Stdout),
		errTerminal: term.IsTerminal(os.Stderr),
	}
	if s.outTerminal {
		s.width, _, _ = term.Size(os.Stdout)
	}
	return s
}

// output is standard output. It keeps the first error, so that no command, help or page ends well that could not be written.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// stdout is where standard output leads, for other programs and for what asks how large the terminal is.
func (e *env) stdout() io.Writer {
	if o, is := e.out.(*output); is {
		return o.to
	}
	return e.out
}

// env is what every command works with: its streams, and what the flags that all commands share say.
type env struct {
	streams
	format      format
	databaseURL string
	schema      string
	timeout     time.Duration // 0: none
	color       term.ColorMode
	role        string // that was connected as, or tried to; "": none yet
	began       bool   // the arguments were right and the command itself ran
	watching    bool   // a list is made again and again, on one connection:
	watched     *database
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	e := &env{streams: s, format: formatTable, color: term.ColorAuto}
	out := &output{to: s.out}
	e.out = out
	root := newRootCommand(e)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if out.err != nil && (err == nil || errors.Is(err, out.err)) { // which is none of the arguments'
		e.began, err = true, fmt.Errorf("write the output: %w", out.err)
	}
	if err == nil {
		return 0
	}
	coded := e.coded(ctx, command, err)
	if coded.err != nil {
		e.say("sqlq: %s", describe(coded.err))
	}
	if coded.code == exitUsage {
		fmt.Fprintf(e.err, "Usage: %s --help\n", command.CommandPath())
	}
	return coded.code
}

// coded gives an error its exit code, and where the operator would not understand it another text.
func (e *env) coded(ctx context.Context, command *cobra.Command, err error) *codedError {
	var coded *codedError
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &coded):
		return &codedError{code: coded.code, err: hidden(coded, err)}
	case !e.began:
		return &codedError{code: exitUsage, err: wrongFlag(err)} // cobra found fault with the arguments
	case ctx.Err() != nil:
		if errors.Is(err, context.Canceled) { // else the command has said more
			err = fmt.Errorf("interrupted: %w", err)
		}
		return &codedError{code: exitInterrupted, err: err}
	case errors.Is(err, context.DeadlineExceeded) && e.timeout > 0:
		return &codedError{code: exitError, err: fmt.Errorf("not done within %s (--timeout): %w", e.timeout, err)}
	case errors.As(err, &pg) && pg.Code == insufficientPrivilege:
		return &codedError{code: exitConnect, err: e.notAllowed(command.Annotations[needs], err)}
	}
	return &codedError{code: exitError, err: err}
}

// wrongFlag says what a flag takes, where the parser would speak of its own functions.
func wrongFlag(err error) error {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err
	}
	takes := map[string]string{"duration": "a duration such as 90s, 10m or 1h30m", "int": "a whole number", "int64": "a whole number",
		"uint64": "a whole number from 0 on", "float64": "a number", "bool": "true or false"}[wrong.GetFlag().Value.Type()]
	if takes == "" {
		return err // a flag of our own says it
	}
	return fmt.Errorf("invalid argument %q for \"--%s\" flag: write %s", wrong.GetValue(), wrong.GetFlag().Name, takes)
}

// hidden returns the whole error, unless everything in it has been said.
func hidden(coded *codedError, err error) error {
	if coded.err == nil {
		return nil
	}
	return err
}

// needs is the annotation of a command that says which role it takes, where that is not operator; owner is that of the
// schema.
const (
	needs = "needs"
	owner = "owner"
)

// notAllowed says which role would be, and how one becomes it.
func (e *env) notAllowed(kind string, err error) error {
	if kind == owner {
		return fmt.Errorf("not allowed, needs the owner of the schema: %w\nConnect as the owner, which this names: sqlq config show", err)
	}
	if kind == "" {
		kind = "operator"
	}
	return fmt.Errorf("not allowed, needs %s: %w\nThe owner of the schema grants it with: sqlq grant %s %s", kind, err, shellWord(cmp.Or(e.role, "ROLE")), kind)
}

const insufficientPrivilege = "42501" // SQLSTATE

// errNothing is the error of a command that found nothing of what it was told to choose.
func errNothing(format string, args ...any) error {
	return &codedError{code: exitNothing, err: fmt.Errorf(format, args...)}
}

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
	flags.StringVar(&e.schema, "schema", envOr("SQLQ_SCHEMA", "sqlq"), "schema that holds sqlq's tables; $SQLQ_SCHEMA")
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

// codedError is an error with an exit code of its own; err may be nil when everything has been said.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &codedError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// describe writes an error for the operator: without what only programs need, and with PostgreSQL's hint.
func describe(err error) string {
	text := err.Error()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return text
	}
	plain := pg.Message
	switch {
	case pg.Hint == "" && pg.Code == insufficientPrivilege: // is said in words
	case pg.Hint == "":
		plain += " (SQLSTATE " + pg.Code + ")"
	default:
		plain += "\n" + pg.Hint
	}
	return strings.Replace(text, pg.Error(), plain, 1)
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
