package term

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strings"
)

// Table is text in columns.
type Table struct {
	Columns []Column
	Rows    [][]string

	Palette Palette
	Head    Style  // of the column names; default Bold
	Indent  string // before each line

	LeftOut []string // the columns for which the last Print had no room
}

// Column is a column of a Table.
type Column struct {
	Name  string
	Right bool // aligned to the right, as numbers are
	Cut   bool // may be cut if the terminal is too narrow
	Spare int  // above 0: may be left out if cutting is not enough, the highest first
	Least int  // the width below which it is not cut while a spare column can be left out instead, in cells; default 12

	// Style returns how a cell looks if there are colours; nil: plain. It does not affect the widths.
	Style func(cell string) Style
}

// Some is the style of a column of counts in which anything but zero stands out.
func Some(s Style) func(cell string) Style {
	return func(cell string) Style {
		if cell == "0" || cell == "~0" || cell == "-" || cell == "" {
			return Plain
		}
		return s
	}
}

// Add adds a row. Cells may contain anything: control characters are shown, not obeyed.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

const columnGap = "  "

// Print prints the table below the column names, or nothing if it has no rows. If width is not 0, the table is made to fit
// a terminal of that width.
func (t *Table) Print(w io.Writer, width int) error {
	if len(t.Rows) == 0 {
		return nil
	}
	lines := t.lines()
	shown, widths := t.fit(lines, width)
	layout := Layout{Gap: columnGap}
	for _, i := range shown {
		layout.Widths, layout.Right = append(layout.Widths, widths[i]), append(layout.Right, t.Columns[i].Right)
	}
	var out bytes.Buffer
	cells := make([]string, len(shown))
	for n, line := range lines {
		for at, i := range shown {
			cells[at] = line[i]
		}
		text := layout.Line(cells, func(at int, cell string) string { return t.painted(n, shown[at], cell) })
		if text != "" {
			out.WriteString(t.Indent + text)
		}
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}

// Layout says where the cells of a line are.
type Layout struct {
	Widths []int // of the columns, in cells of the terminal
	Right  []bool
	Gap    string // between columns
}

// Line lays out cells, none of which contains a line end: they are cut to their columns, and then painted by look. It has no
// trailing blanks.
func (l Layout) Line(cells []string, look func(i int, cell string) string) string {
	var out strings.Builder
	gap := "" // before the next cell
	for i, cell := range cells {
		cell = Cut(cell, l.Widths[i])
		pad := strings.Repeat(" ", max(0, l.Widths[i]-Width(cell)))
		if l.Right[i] {
			gap, pad = gap+pad, ""
		}
		if cell != "" {
			out.WriteString(gap + look(i, cell))
			gap = ""
		}
		gap += pad + l.Gap
	}
	return out.String()
}

// lines returns the names and the rows, each cell without line ends.
func (t *Table) lines() [][]string {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = strings.ToUpper(c.Name)
	}
	lines := append(make([][]string, 0, len(t.Rows)+1), names)
	for _, row := range t.Rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = OneLine(cell)
		}
		lines = append(lines, cells)
	}
	return lines
}

// fit returns the columns to show, and how wide each is. While they take more than width, those that may be cut become narrower,
// the widest first; then spare ones are left out.
func (t *Table) fit(lines [][]string, width int) (shown, widths []int) {
	width = max(0, width-len(t.Indent))
	full := make([]int, len(t.Columns))
	for i := range t.Columns {
		shown = append(shown, i)
		for _, line := range lines {
			full[i] = max(full[i], Width(line[i]))
		}
	}
	for t.LeftOut = nil; ; {
		least := slices.MaxFunc(shown, func(a, b int) int { return t.Columns[a].Spare - t.Columns[b].Spare })
		last := t.Columns[least].Spare == 0
		widths = slices.Clone(full)
		total := len(columnGap) * (len(shown) - 1)
		for _, i := range shown {
			total += widths[i]
		}
		for width > 0 && total > width {
			widest := -1
			for _, i := range shown {
				if t.Columns[i].Cut && widths[i] > t.narrowest(i, last) && (widest < 0 || widths[i] > widths[widest]) {
					widest = i
				}
			}
			if widest < 0 {
				break
			}
			widths[widest]--
			total--
		}
		if width == 0 || total <= width || last {
			return shown, widths
		}
		shown = slices.DeleteFunc(shown, func(i int) bool { return i == least })
		t.LeftOut = append(t.LeftOut, lines[0][least])
	}
}

// narrowest returns how far a column may be cut; last means that no spare one can be left out.
func (t *Table) narrowest(i int, last bool) int {
	least := 12
	if c := t.Columns[i]; c.Least > 0 && !last {
		least = c.Least
	}
	return max(least, Width(t.Columns[i].Name))
}

// painted applies a cell's style; line 0 contains the column names.
func (t *Table) painted(line, i int, cell string) string {
	switch {
	case line == 0:
		return t.Palette.Paint(cmp.Or(t.Head, Bold), cell)
	case t.Columns[i].Style == nil:
		return cell
	}
	return t.Palette.Paint(t.Columns[i].Style(OneLine(t.Rows[line-1][i])), cell)
}
