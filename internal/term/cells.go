package term

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Width returns how many cells of a terminal a text takes, not counting escape sequences. An ideograph or an emoji takes two, even if
// it is a flag or joined from several; a combining accent takes none. (It counts like the library that draws `sqlq top`.)
func Width(text string) int { return ansi.StringWidth(text) }

// Cut shortens a text to at most width cells, the last of which is then an ellipsis. It does not split what a terminal shows as one
// character. Escape sequences are kept.
func Cut(text string, width int) string {
	if len(text) <= width || Width(text) <= width { // no character takes more cells than bytes
		return text
	}
	if width < 1 {
		return ""
	}
	return strings.TrimRight(ansi.Truncate(text, width-1, ""), " ") + "…"
}

// Clip cuts a text to at most width cells, without an ellipsis. Escape sequences are kept.
func Clip(text string, width int) string { return ansi.Truncate(text, max(0, width), "") }

// Wrap breaks text into lines of at most width cells, even within words. The width is at least 1; a character of two cells
// stays whole.
func Wrap(text string, width int) []string {
	return strings.Split(ansi.Hardwrap(text, width, true), "\n")
}
