package demo

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// screen prints the story: on a terminal in colour and with a moving line, otherwise as plain text.
type screen struct {
	out      io.Writer
	terminal bool
	color    bool
	width    int
	moving   bool // the last line is a progress line
}

// ANSI styles.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (s *screen) style(code, text string) string {
	if !s.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// title begins a part of the story.
func (s *screen) title(text string) { s.line("\n" + s.style(bold, text)) }

// say prints what happens.
func (s *screen) say(format string, args ...any) { s.line("  " + fmt.Sprintf(format, args...)) }

// saw prints an observation that is as it should be.
func (s *screen) saw(format string, args ...any) {
	s.line("  " + s.style(green, "✓") + " " + fmt.Sprintf(format, args...))
}

// missed prints an observation that is not as it should be.
func (s *screen) missed(format string, args ...any) {
	s.line("  " + s.style(red, "✗") + " " + fmt.Sprintf(format, args...))
}

// typed prints a command as an operator would type it.
func (s *screen) typed(command string) { s.line("  " + s.style(cyan, "$ "+command)) }

func (s *screen) line(text string) {
	s.still()
	fmt.Fprintln(s.out, text)
}

// barCells is the length of a bar in characters; each shows eight steps.
const barCells = 24

// progress shows n of most as a bar on the last line of a terminal, replacing what was there.
func (s *screen) progress(n, most int64, text string) {
	if !s.terminal {
		return
	}
	eighths := barCells * 8
	if most > 0 {
		eighths = int(min(n, most) * barCells * 8 / most)
	}
	bar := strings.Repeat("█", eighths/8)
	if eighths%8 > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[eighths%8-1])
	}
	bar += strings.Repeat(" ", barCells-utf8.RuneCountInString(bar))
	text = cut(text, s.width-barCells-6) // two blanks in front, the bar's ends, a blank, and the last column free
	fmt.Fprint(s.out, "\r\x1b[K  "+s.style(faint, "▕")+s.style(cyan, bar)+s.style(faint, "▏")+" "+text)
	s.moving = true
}

// still removes the progress line.
func (s *screen) still() {
	if s.moving {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.moving = false
	}
}

// table prints lines of cells in columns; the first line has their names. If the terminal is too narrow, it leaves out the
// columns after the long one, and cuts that one.
func (s *screen) table(lines [][]string, long int) {
	widths := make([]int, len(lines[0]))
	for _, cells := range lines {
		for i := range cells {
			cells[i] = printable(cells[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(cells[i]))
		}
	}
	total := func() (n int) {
		for _, width := range widths {
			n += 2 + width
		}
		return n
	}
	if s.terminal && total() > s.width {
		widths = widths[:long+1]
		widths[long] = max(widths[long]-max(0, total()-s.width), 8)
	}
	for i, cells := range lines {
		var text strings.Builder
		for j, width := range widths {
			cell := cut(cells[j], width)
			text.WriteString("  " + cell + strings.Repeat(" ", width-utf8.RuneCountInString(cell)))
		}
		whole := strings.TrimRight(text.String(), " ")
		if i == 0 {
			whole = s.style(faint, whole)
		}
		s.line(whole)
	}
}

// cut shortens a text to that many characters.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(0, width-1)]) + "…"
}

// printable makes a foreign text safe for a line of a terminal: characters that a terminal would interpret, or that would
// be invisible, are shown as numbers. Customers type anything, and it comes back in error texts.
func printable(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += size
	}
	return b.String()
}
