package main

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// table is text in columns.
type table struct {
	columns []column
	rows    [][]string
	leftOut []string                   // names of the columns that print had no room for
	paint   func(style, string) string // nil: no colours
}

type column struct {
	name  string
	right bool // aligned to the right, as numbers are
	cut   bool // gives way where the terminal is too narrow
	spare int  // above 0: left out where that is not enough, the highest first

	// style says how a cell looks where colours are wanted; nil: plain. It has no part in the widths.
	style func(cell string) style
}

// some is the style of a column of counts in which anything but none stands out.
func some(s style) func(cell string) style {
	return func(cell string) style {
		if cell == "0" || cell == "~0" || cell == "-" || cell == "" {
			return plainText
		}
		return s
	}
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

const columnGap = "  "

// print prints the table with its names above. A width other than 0 is that of the terminal, into which it is made to fit.
func (t *table) print(w io.Writer, width int) error {
	if len(t.rows) == 0 {
		return nil
	}
	lines := t.lines()
	shown, widths := t.fit(lines, width)
	var out bytes.Buffer
	for n, line := range lines {
		gap := "" // blanks before the next cell; those at the end of a line are left out
		for _, i := range shown {
			cell := cut(line[i], widths[i])
			pad := strings.Repeat(" ", widths[i]-ansi.StringWidth(cell))
			if t.columns[i].right {
				gap, pad = gap+pad, ""
			}
			if cell != "" {
				out.WriteString(gap + t.painted(n, i, cell))
				gap = ""
			}
			gap += pad + columnGap
		}
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}

// lines are the names and the rows, each cell on one line.
func (t *table) lines() [][]string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = strings.ToUpper(c.name)
	}
	lines := append(make([][]string, 0, len(t.rows)+1), names)
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = oneLine(cell)
		}
		lines = append(lines, cells)
	}
	return lines
}

// narrowest is how far a column is cut, unless its name is longer.
const narrowest = 12

// fit returns the columns that are shown, and how wide each is. While they take more than width those that may be cut give
// way, the widest first; then spare ones are left out.
func (t *table) fit(lines [][]string, width int) (shown, widths []int) {
	full := make([]int, len(t.columns))
	for i := range t.columns {
		shown = append(shown, i)
		for _, line := range lines {
			full[i] = max(full[i], ansi.StringWidth(line[i]))
		}
	}
	for t.leftOut = nil; ; {
		widths = slices.Clone(full)
		total := len(columnGap) * (len(shown) - 1)
		for _, i := range shown {
			total += widths[i]
		}
		for width > 0 && total > width {
			widest := -1
			for _, i := range shown {
				if t.columns[i].cut && widths[i] > max(narrowest, ansi.StringWidth(lines[0][i])) && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
			total--
		}
		least := slices.MaxFunc(shown, func(a, b int) int { return t.columns[a].spare - t.columns[b].spare })
		if width == 0 || total <= width || t.columns[least].spare == 0 {
			return shown, widths
		}
		shown = slices.DeleteFunc(shown, func(i int) bool { return i == least })
		t.leftOut = append(t.leftOut, lines[0][least])
	}
}

// painted puts a cell into its style; line 0 holds the names of the columns.
func (t *table) painted(line, i int, cell string) string {
	switch {
	case t.paint == nil:
		return cell
	case line == 0:
		return t.paint(bold, cell)
	case t.columns[i].style == nil:
		return cell
	}
	return t.paint(t.columns[i].style(oneLine(t.rows[line-1][i])), cell)
}

// cut shortens text to so many cells of a terminal, of which some characters take two and some none.
func cut(text string, width int) string {
	if ansi.StringWidth(text) <= width {
		return text
	}
	return strings.TrimRight(ansi.Truncate(text, max(0, width-1), ""), " ") + "…"
}
