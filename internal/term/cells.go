package term

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// Width is how many cells of a terminal a text takes, escape sequences left out: an ideograph or an emoji takes two, also one
// that is joined from several or a flag, a combining accent none. (The library counts as the one does that draws `sqlq top`.)
func Width(text string) int { return ansi.StringWidth(text) }

// Cut shortens a text to so many cells, the last of which then holds an ellipsis. It does not split what a terminal shows as one
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

// Clip cuts what does not fit so many cells off, without an ellipsis. Escape sequences are kept.
func Clip(text string, width int) string { return ansi.Truncate(text, max(0, width), "") }

// Wrap breaks text into lines of at most so many cells, wherever they end. The width is at least 1; what takes two cells by
// itself stays whole.
func Wrap(text string, width int) []string {
	return strings.Split(ansi.Hardwrap(text, width, true), "\n")
}
