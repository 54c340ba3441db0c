package term

import (
	"fmt"
	"io"
	"strings"
)

// Status is a line of a terminal that is overwritten again and again, to show progress. It uses no escape sequences, so
// it works on any terminal. The zero value shows nothing.
type Status struct {
	To    io.Writer // a terminal; nil: show nothing
	Width int       // columns of the terminal; 0: unknown

	shown int // cells of the text on the screen
}

// Show replaces the last text by this one, cut to the terminal's width.
func (s *Status) Show(format string, args ...any) {
	if s.To == nil {
		return
	}
	text := fmt.Sprintf(format, args...)
	if s.Width > 0 { // the beginning of a longer one would stay on the screen
		text = Cut(text, s.Width-1)
	}
	width := Width(text)
	fmt.Fprintf(s.To, "\r%s%s", text, strings.Repeat(" ", max(0, s.shown-width)))
	s.shown = width
}

// End clears the line, and leaves the cursor at its beginning.
func (s *Status) End() {
	if s.To != nil && s.shown > 0 {
		fmt.Fprintf(s.To, "\r%*s\r", s.shown, "")
		s.shown = 0
	}
}
