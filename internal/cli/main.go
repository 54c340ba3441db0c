// Package cli is the operator's command line, which cmd/sqlq runs.
//
// A file is a noun: queue.go holds `sqlq queue …`, error.go `sqlq error …`. A command is a struct of its arguments and flags
// (queueDropOptions), the constructor that binds them (newQueueDropCommand), and the function that does it (runQueueDrop), which
// knows nothing of flags and can be called by a test. What all commands share is an env: the streams, how to print, and which
// database. There is no SQL here: what a command does is in package ops.
//
// main.go runs a command and turns its error into an exit code, root.go has the tree of commands, connect.go finds the
// database, output.go prints.
//
// Data goes to standard output, everything else to standard error.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	e := newEnv(s)
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
