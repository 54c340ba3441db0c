package cli

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sqlq/sqlq/internal/term"
)

// list is a table of the screen, from which a row can be chosen.
type list struct {
	columns []listColumn
	shown   []listRow // filtered and sorted
	all     int       // before the filter
	none    string    // said where there is no row
}

type listColumn struct {
	name  string
	right bool
	rest  bool // takes the width that the others leave
	spark bool // a sparkline: sparkWidth, and wider where there is room
	style func(cell string) term.Style
}

type listRow struct {
	key   string
	cells []string
	by    []any      // what each column is sorted by: float64, the highest first, or string; nil: not at all
	style term.Style // of the first cell

	series []float64 // for the column that is a sparkline
}

// arranged is the list with the rows that hold the filter's text, in the order of the place.
func (l list) arranged(rows []listRow, filter string, at place) list {
	l.all = len(rows)
	filter = strings.ToLower(filter)
	for _, row := range rows {
		for i := range row.cells {
			row.cells[i] = term.OneLine(row.cells[i])
		}
		if filter == "" || strings.Contains(strings.ToLower(strings.Join(row.cells, "\x00")), filter) {
			l.shown = append(l.shown, row)
		}
	}
	column := min(at.sort, len(l.columns)-1)
	slices.SortStableFunc(l.shown, func(a, b listRow) int {
		order := compare(a.by[column], b.by[column])
		if at.reversed {
			order = -order
		}
		return order
	})
	l.columns = slices.Clone(l.columns)
	l.columns[column].name += map[bool]string{false: "▾", true: "▴"}[at.reversed]
	return l
}

func compare(a, b any) int {
	switch a := a.(type) {
	case string:
		return cmp.Compare(a, b.(string))
	case float64:
		return -cmp.Compare(a, b.(float64)) // NaN is the least, so it comes last
	}
	return 0
}

// chosen is the index of the row with the key; of the first where there is none.
func (l list) chosen(key string) int {
	return max(0, slices.IndexFunc(l.shown, func(row listRow) bool { return row.key == key }))
}

const sparkWidth = 8

// draw draws the list in so many lines, its names being the first. Only with focus is the chosen row marked.
func (l list) draw(width, height int, key string, focus bool, paint func(term.Style, string) string) []string {
	const mark = 2
	widths := make([]int, len(l.columns))
	left, rest := width-mark-(len(l.columns)-1), -1
	for i, c := range l.columns {
		widths[i] = term.Width(c.name)
		for _, row := range l.shown {
			widths[i] = max(widths[i], term.Width(row.cells[i]))
		}
		switch {
		case c.rest:
			rest = i
			continue
		case c.spark:
			widths[i] = sparkWidth
		}
		left -= widths[i]
	}
	if rest >= 0 {
		wanted := widths[rest]
		widths[rest] = clamp(wanted, max(8, left))
		left -= widths[rest]
	}
	for i, c := range l.columns { // what is left over is shared out: first a second blank before each column, then sparks
		if c.spark && left > 2*len(l.columns) {
			more := min(left-len(l.columns), samplesKept-sparkWidth, 40)
			widths[i] += more
			left -= more
		}
	}
	gap := " "
	if left >= len(l.columns)-1 {
		gap = "  "
	}
	layout := term.Layout{Widths: widths, Gap: gap}
	for _, c := range l.columns {
		layout.Right = append(layout.Right, c.right)
	}
	line := func(cells []string, series []float64, look func(i int, cell string) string) string {
		cells = slices.Clone(cells)
		for i, c := range l.columns {
			if c.spark && series != nil {
				cells[i] = sparkline(series, widths[i])
			}
		}
		return layout.Line(cells, look)
	}
	names := make([]string, len(l.columns))
	for i, c := range l.columns {
		names[i] = strings.ToUpper(c.name)
	}
	head := term.Faint
	if focus {
		head = term.Bold
	}
	lines := []string{"  " + line(names, nil, func(_ int, cell string) string { return paint(head, cell) })}
	if len(l.shown) == 0 {
		text := l.none
		if l.all > 0 {
			text = fmt.Sprintf("none of %d fits the filter", l.all)
		}
		return append(lines, "  "+paint(term.Faint, text))
	}
	chosen := l.chosen(key)
	from := max(0, chosen-(height-1)+1)
	if !focus {
		from = 0
	}
	for i := from; i < len(l.shown) && len(lines) < height; i++ {
		row := l.shown[i]
		if focus && i == chosen {
			text := line(row.cells, row.series, func(_ int, cell string) string { return cell })
			lines = append(lines, paint(term.Reverse, "› "+text+strings.Repeat(" ", max(0, width-mark-term.Width(text)))))
			continue
		}
		lines = append(lines, "  "+line(row.cells, row.series, func(i int, cell string) string {
			if i == 0 && row.style != term.Plain {
				return paint(row.style, cell)
			}
			if s := l.columns[i].style; s != nil {
				return paint(s(cell), cell)
			}
			return cell
		}))
	}
	return lines
}

// list returns the list that has the keys.
func (m topModel) list() list {
	if n := len(m.pages); n > 0 {
		return m.pageList(m.pages[n-1])
	}
	return m.sectionList(m.focus)
}

// sectionList returns a list of the first page. The filter is that of the list that has the keys.
func (m topModel) sectionList(s section) list {
	filter := ""
	if s == m.focus {
		filter = m.filter
	}
	var l list
	var rows []listRow
	read := m.read
	if read == nil {
		read = &snapshot{}
	}
	switch s {
	case queuesSection:
		l = list{none: "no queues; make one with: sqlq queue create NAME", columns: []listColumn{{name: "queue", rest: true}, {name: "ready", right: true},
			{name: "delayed", right: true}, {name: "leased", right: true}, {name: "failed", right: true, style: term.Some(term.Red)}, {name: "oldest", right: true},
			{name: "in/s", right: true}, {name: "out/s", right: true}, {name: "arrivals", spark: true}}}
		for _, q := range read.queues {
			rows = append(rows, queueRow(q, m.rates[q.Name]))
		}
	case groupsSection:
		l = list{none: "no failed messages", columns: []listColumn{{name: "failures"}, {name: "count", right: true, style: term.Some(term.Red)},
			{name: "last", right: true}, {name: "queue"}, {name: "error", rest: true}}}
		for _, g := range read.groups {
			ago := read.at.Sub(g.last)
			rows = append(rows, listRow{key: g.group, cells: []string{g.group, count(g.count), age(max(0, ago)), g.queue, g.message},
				by: []any{g.group, float64(g.count.N), float64(-ago), g.queue, g.message}})
		}
	default:
		l = list{none: "no running instance is known", columns: []listColumn{{name: "instances", rest: true}, {name: "host"}, {name: "version"}, {name: "state"},
			{name: "seen", right: true}, {name: "in hand", right: true}, {name: "done/s", right: true}, {name: "slow", right: true, style: term.Some(term.Yellow)}}}
		for i, in := range read.instances {
			rows = append(rows, instanceRow(i, in))
		}
	}
	return l.arranged(rows, filter, m.places[s])
}

func queueRow(q topQueue, r rates) listRow {
	oldest, oldestBy := "-", math.NaN()
	if q.OldestAge != nil {
		oldest, oldestBy = age(max(0, *q.OldestAge)), float64(*q.OldestAge)
	}
	row := listRow{key: q.Name, cells: []string{q.Name, count(q.Ready), count(q.Delayed), count(q.Leased), count(q.Failed), oldest,
		topRate(r.lastIn()), topRate(r.lastOut()), ""}, series: r.in,
		by: []any{q.Name, float64(q.Ready.N), float64(q.Delayed.N), float64(q.Leased.N), float64(q.Failed.N), oldestBy, r.lastIn(), r.lastOut(), r.lastIn()}}
	if q.paused {
		row.cells[0] += " (paused)"
		row.style = term.Yellow
	}
	return row
}

func instanceRow(i int, in topInstance) listRow {
	row := listRow{key: fmt.Sprint(i, in.endpoint), cells: []string{in.endpoint, in.host, in.version, in.state, age(in.seen),
		fmt.Sprintf("%d/%d", in.inHand, in.concurrency), topRate(in.rate), fmt.Sprint(in.slow)},
		by: []any{in.endpoint, in.host, in.version, in.state, float64(in.seen), float64(in.inHand), in.rate, float64(in.slow)}}
	if in.state != "running" {
		row.style = term.Red
	}
	return row
}

// failedByTime is the column of failed messages by which they are sorted at first.
const failedByTime = 1

// pageList returns the list of a page.
func (m topModel) pageList(p page) list {
	now := time.Now()
	if m.read != nil {
		now = m.read.at
	}
	var l list
	var rows []listRow
	if p.kind == queuePage && p.tab == 0 {
		l = list{none: "no message is ready", columns: []listColumn{{name: "seq", right: true}, {name: "sent", right: true}, {name: "type"},
			{name: "attempt", right: true}, {name: "body", rest: true}}}
		for _, r := range p.ready {
			ago := now.Sub(r.SentAt)
			body := string(r.Body[:min(len(r.Body), 1000)])
			rows = append(rows, listRow{key: fmt.Sprint(r.Seq), cells: []string{fmt.Sprint(r.Seq), age(max(0, ago)), r.Type, fmt.Sprint(r.Attempt), body},
				by: []any{float64(-r.Seq), float64(ago), r.Type, float64(r.Attempt), body}})
		}
	} else {
		l = list{none: "no failed messages", columns: []listColumn{{name: "number", right: true}, {name: "failed", right: true}, {name: "queue"}, {name: "type"},
			{name: "attempts", right: true}, {name: "error", rest: true}}}
		for _, f := range p.failed {
			ago := now.Sub(f.FailedAt)
			rows = append(rows, listRow{key: fmt.Sprint(f.Number), cells: []string{fmt.Sprint(f.Number), age(max(0, ago)), f.Queue, f.Type, fmt.Sprint(f.Attempts), f.Error},
				by: []any{float64(f.Number), float64(-ago), f.Queue, f.Type, float64(f.Attempts), f.Error}})
		}
	}
	if !p.filledOnce {
		l.none = "reading …"
	}
	return l.arranged(rows, m.filter, p.places[p.tab])
}
