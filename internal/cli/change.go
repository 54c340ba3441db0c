package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sqlq/sqlq/internal/term"
)

// change is what all commands have that change something.
type change struct {
	yes    bool   // do not ask
	dryRun bool   // only say what would be done
	reason string // for the record of operations
}

// asks is the annotation of every command that changes something. It says when the command wants to be told that it shall.
const asks = "asks"

const (
	asksAlways     = "always"      // of what is done for good, or in a running system: off a terminal it needs --yes
	asksOnTerminal = "on terminal" // where the wrong one is soon named: off a terminal it goes on
	asksNever      = "never"       // what adds something, or can be taken back
)

// flags gives a command that changes something the flags that all of those have, and marks it.
func (ch *change) flags(c *cobra.Command, when string) {
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[asks] = when
	yes := map[string]string{
		asksAlways:     "do it without asking",
		asksOnTerminal: "do it without asking; off a terminal it does not ask",
		asksNever:      "accepted; this command does not ask",
	}
	c.Flags().BoolVarP(&ch.yes, "yes", "y", false, yes[when])
	c.Flags().BoolVar(&ch.dryRun, "dry-run", false, "only say what would be done")
}

// reasonFlag gives a command that is written down as an operation its --reason.
func (ch *change) reasonFlag(c *cobra.Command) {
	c.Flags().StringVar(&ch.reason, "reason", "", "why, for the record that 'sqlq operation ls' shows")
}

// confirm asks whether to go on. what says what will be done, where, and to how many. Off a terminal only --yes will do.
func (e *env) confirm(ctx context.Context, ch change, what string) error {
	if ch.yes {
		return nil
	}
	if !e.attended() {
		return usageErrorf("this would %s; add --yes to do it without being asked", what)
	}
	fmt.Fprintf(e.err, "This will %s.\nGo on? [y/N] ", term.Visible(what))
	switch answer := strings.ToLower(e.answer(ctx)); answer {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// confirmOnTerminal asks where somebody sits there, and goes on elsewhere.
func (e *env) confirmOnTerminal(ctx context.Context, ch change, what string) error {
	if !e.attended() {
		return nil
	}
	return e.confirm(ctx, ch, what)
}

// confirmByName asks for the name of what will be destroyed with all that it holds.
func (e *env) confirmByName(ctx context.Context, ch change, what, name string) error {
	if ch.yes {
		return nil
	}
	if !e.attended() {
		return usageErrorf("this would %s, for good; add --yes to do it without being asked", what)
	}
	fmt.Fprintf(e.err, "This will %s, for good.\nType %q to go on: ", term.Visible(what), name)
	if e.answer(ctx) == name {
		return nil
	}
	return errors.New("nothing was done")
}

// answer reads a line from the operator; "" when ctx ends first.
func (e *env) answer(ctx context.Context) string {
	answer := make(chan string, 1)
	go func() { // reading cannot be interrupted; the process ends soon after ctx does
		line, _ := bufio.NewReader(e.in).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case given := <-answer:
		return given
	case <-ctx.Done():
		fmt.Fprintln(e.err)
		return ""
	}
}

// attended says whether somebody sits there who can be asked.
func (e *env) attended() bool { return e.inTerminal && e.errTerminal }

// reading is standard input, of which a Read ends when ctx does: a terminal, or a pipe that nobody writes to, would hold the
// command up. On a terminal it says what is read.
func (e *env) reading(ctx context.Context, what string) io.Reader {
	if e.attended() {
		e.say("reading %s from the terminal; Ctrl-D ends it", what)
	}
	return interruptible{ctx, e.in}
}

type interruptible struct {
	ctx  context.Context
	from io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	type outcome struct {
		n   int
		err error
	}
	read, buffer := make(chan outcome, 1), make([]byte, len(p)) // p is the caller's again when ctx has ended
	go func() {
		n, err := r.from.Read(buffer)
		read <- outcome{n, err}
	}()
	select {
	case got := <-read:
		return copy(p, buffer[:got.n]), got.err
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}

// progress shows on a terminal how far a command is; its last word is wiped out by End.
func (e *env) progress() *term.Status {
	if !e.errTerminal {
		return &term.Status{}
	}
	return &term.Status{To: e.err, Width: e.width}
}
