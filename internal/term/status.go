package term

import (
	"fmt"
	"io"
	"strings"
)

// Status is a line of a terminal that is written again and again, to show how far something is. It uses no escape sequences, so
// that it works on any terminal. The zero value shows nothing.
type Status struct {
	To    io.Writer // a terminal; nil: nobody is looking
	Width int       // columns of the terminal; 0: unknown

	shown int // cells of what stands there
}

// Show writes a text in place of the last one, cut to the terminal's width.
func (s *Status) Show(format string, args ...any) {
	if s.To == nil {
		return
	}
	text := fmt.Sprintf(format, args...)
	if s.Width > 0 { // a longer one would leave its beginning behind
		text = Cut(text, s.Width-1)
	}
	width := Width(text)
	fmt.Fprintf(s.To, "\r%s%s", text, strings.Repeat(" ", max(0, s.shown-width)))
	s.shown = width
}

// End wipes the line out. The cursor is at its beginning.
func (s *Status) End() {
	if s.To != nil && s.shown > 0 {
		fmt.Fprintf(s.To, "\r%*s\r", s.shown, "")
		s.shown = 0
	}
}
