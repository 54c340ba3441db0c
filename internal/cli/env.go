package cli

import (
	"io"
	"os"
	"time"

	"github.com/sqlq/sqlq/internal/term"
)

// defaultSchema holds sqlq's tables where nothing says otherwise.
const defaultSchema = "sqlq"

// env is what every command works with: its streams, and what the flags that all commands share say.
type env struct {
	streams
	format      format
	color       term.ColorMode
	databaseURL string        // "": the environment says it
	schema      string        // that holds sqlq's tables
	timeout     time.Duration // 0: none
	role        string        // that was connected as, or tried to; "": none yet
	began       bool          // the arguments were right and the command itself ran
	watching    bool          // a list is made again and again, on one connection:
	watched     *database
}

func newEnv(s streams) *env {
	return &env{streams: s, format: formatTable, color: term.ColorAuto, schema: defaultSchema}
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
