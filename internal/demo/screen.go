package demo

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/sqlq/sqlq/internal/term"
)

// screen prints the story: on a terminal in colour and with a moving line, otherwise as plain text.
type screen struct {
	out     io.Writer
	palette term.Palette
	width   int         // of the terminal; 0: it is none
	status  term.Status // the line that moves
}

func newScreen(o Options) *screen {
	s := &screen{out: o.Out, palette: o.Palette}
	if o.Terminal {
		s.width = o.Width
		s.status = term.Status{To: o.Out, Width: o.Width}
	}
	return s
}

// title begins a part of the story.
func (s *screen) title(text string) { s.line("\n" + s.palette.Paint(term.Bold, text)) }

// say prints what happens.
func (s *screen) say(format string, args ...any) { s.line("  " + fmt.Sprintf(format, args...)) }

// saw prints an observation that is as it should be.
func (s *screen) saw(format string, args ...any) {
	s.line("  " + s.palette.Paint(term.Green, "✓") + " " + fmt.Sprintf(format, args...))
}

// missed prints an observation that is not as it should be.
func (s *screen) missed(format string, args ...any) {
	s.line("  " + s.palette.Paint(term.Red, "✗") + " " + fmt.Sprintf(format, args...))
}

// typed prints a command as an operator would type it.
func (s *screen) typed(command string) { s.line("  " + s.palette.Paint(term.Cyan, "$ "+command)) }

func (s *screen) line(text string) {
	s.status.End()
	fmt.Fprintln(s.out, text)
}

// barCells is the length of a bar in characters; each shows eight steps.
const barCells = 24

// progress shows n of most as a bar on the last line of a terminal, replacing what was there.
func (s *screen) progress(n, most int64, text string) {
	eighths := barCells * 8
	if most > 0 {
		eighths = int(min(n, most) * barCells * 8 / most)
	}
	bar := strings.Repeat("█", eighths/8)
	if eighths%8 > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[eighths%8-1])
	}
	bar += strings.Repeat(" ", barCells-term.Width(bar))
	s.status.Show("  %s%s%s %s", s.palette.Paint(term.Faint, "▕"), s.palette.Paint(term.Cyan, bar), s.palette.Paint(term.Faint, "▏"), text)
}

// table prints lines of cells in columns; the first line has their names. If the terminal is too narrow, it leaves out the
// columns after the long one, and cuts that one.
func (s *screen) table(lines [][]string, long int) {
	t := term.Table{Palette: s.palette, Head: term.Faint, Indent: "  ", Rows: lines[1:]}
	for i, name := range lines[0] {
		c := term.Column{Name: name}
		switch {
		case i == long:
			c.Cut, c.Least = true, math.MaxInt
		case i > long:
			c.Spare = 1
		}
		t.Columns = append(t.Columns, c)
	}
	s.status.End()
	_ = t.Print(s.out, s.width) // the story goes on, as with its other lines
}
