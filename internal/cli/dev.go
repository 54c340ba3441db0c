package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/devpg"
	"github.com/sqlq/sqlq/sqlq/migrate"
)

// devOptions are the arguments and flags of `sqlq dev`.
type devOptions struct {
	command  []string
	printURL bool
}

func newDevCommand(e *env) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev [-- COMMAND...]",
		Short: "Start a throw-away PostgreSQL with sqlq's schema",
		Long: `Start a throw-away PostgreSQL with sqlq's schema, print its URL, and stay until Ctrl-C. With a command, run that with
SQLQ_DATABASE_URL and DATABASE_URL set, and end with its exit code. The server and its data are removed at the end.

Programs in other terminals find it by --url, which starts no server: it prints the URL of the one that was started last
and stays.`,
		Example: "  sqlq dev\n  export DATABASE_URL=$(sqlq dev --url)\n  sqlq dev -- go test ./...\n  sqlq dev -- sqlq migrate status",
		Args: func(c *cobra.Command, args []string) error {
			if before := c.ArgsLenAtDash(); len(args) > 0 && before != 0 {
				return fmt.Errorf("put the command behind two dashes: sqlq dev -- %s", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, command []string) error {
			o.command = command
			return runDev(c.Context(), e, &o)
		},
	}
	cmd.Flags().BoolVar(&o.printURL, "url", false, "print the URL of the server that a sqlq dev in another terminal keeps running")
	return cmd
}

func runDev(ctx context.Context, e *env, o *devOptions) (err error) {
	if e.databaseURL != "" {
		return usageErrorf("sqlq dev starts a server of its own: leave --database-url out")
	}
	if o.printURL {
		if len(o.command) > 0 {
			return usageErrorf("--url starts nothing: leave the command out")
		}
		url, err := notedURL(ctx)
		if err != nil {
			return &codedError{code: exitConnect, err: err}
		}
		view := struct {
			URL string `json:"url"`
		}{url}
		return e.printOne(view, func(w io.Writer) { fmt.Fprintln(w, url) })
	}
	server, err := devpg.Start(ctx, devpg.Options{Log: e.err})
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := server.Stop(); stopErr != nil {
			e.say("sqlq: stop the server: %v", stopErr)
			err = cmp.Or(err, error(&codedError{code: exitError}))
		}
	}()
	url := server.URL("postgres")
	if err := migrate.Up(ctx, url, e.schema); err != nil {
		return err
	}
	if len(o.command) > 0 && ctx.Err() == nil {
		return runCommand(e, o.command, url)
	}
	return stayUntilEnd(ctx, e, server, url)
}

// stayUntilEnd prints the URL and waits for the end.
func stayUntilEnd(ctx context.Context, e *env, server *devpg.Server, url string) error {
	if forget, err := noteURL(url); err == nil {
		defer forget()
	} else {
		e.say("sqlq: sqlq dev --url will not find this server: %v", err)
	}
	view := struct {
		URL    string `json:"url"`
		Schema string `json:"schema"`
	}{url, e.schema}
	if err := e.printOne(view, func(w io.Writer) { fmt.Fprintln(w, url) }); err != nil {
		return err
	}
	e.say(`PostgreSQL %s (%s) runs, with sqlq in schema %q.
In other terminals, where sqlq dev --url prints the URL, too:
  export DATABASE_URL='%s'
  sqlq queue create hello
  sqlq send hello --type Greet --body '{"name": "you"}'
  sqlq queue peek hello
Ctrl-C stops it and removes its data.`, server.Version(), server.Origin(), e.schema, url)
	select {
	case <-ctx.Done():
		return nil
	case <-server.Done():
		return errors.New("the server has ended by itself")
	}
}

// runCommand runs a command with the database in its environment. The error carries its exit code.
func runCommand(e *env, command []string, url string) error {
	c := exec.Command(command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = e.in, e.stdout(), e.err
	c.Env = append(os.Environ(), "SQLQ_DATABASE_URL="+url, "DATABASE_URL="+url, "SQLQ_SCHEMA="+e.schema)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := c.Start(); err != nil {
		return &codedError{code: 127, err: fmt.Errorf("run %s: %w", command[0], err)} // as a shell does
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		select {
		case s := <-signals:
			// Ctrl-C on a terminal has reached the command as well. What the command makes of a signal is its affair: the
			// server stays until it ends.
			if s != os.Interrupt || !e.inTerminal {
				_ = c.Process.Signal(s) // it may have just ended
			}
		case err := <-ended:
			return commandError(err)
		}
	}
}

// commandError turns the end of a command into an error with its exit code, a shell's 128 and more for a signal.
func commandError(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return &codedError{code: code}
}
