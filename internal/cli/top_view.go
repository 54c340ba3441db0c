package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// View draws the screen: two lines of what it is and how it goes, lists or a page, and the keys.
func (m topModel) View() tea.View {
	lines := append(m.head(), m.middle(max(1, m.height-3))...)
	lines = append(lines[:min(len(lines), max(1, m.height-1))], make([]string, max(0, m.height-1-len(lines)))...)
	lines = append(lines, m.foot())
	for i, line := range lines {
		lines[i] = term.Clip(line, m.width)
	}
	view := tea.NewView(strings.Join(lines, "\n"))
	view.AltScreen = true
	view.DisableBracketedPasteMode = true
	return view
}

// head is two lines: where, and the sum of all; or what is wrong.
func (m topModel) head() []string {
	title := m.paint(term.Bold, "sqlq top")
	for _, p := range m.pages {
		title += " › " + term.OneLine(p.title())
	}
	if len(m.pages) == 0 {
		title += "  " + m.where
	}
	state := "reading …"
	if m.read != nil {
		state = fmt.Sprintf("%s, every %s", m.read.at.Format(time.TimeOnly), m.every)
	}
	if m.frozen {
		state = m.paint(term.Yellow, "frozen") + " at " + state
	}
	title = term.Cut(title, max(0, m.width-term.Width(state)-2))
	title += strings.Repeat(" ", max(1, m.width-term.Width(title)-term.Width(state))) + state
	return []string{title, m.state()}
}

// state is the second line.
func (m topModel) state() string {
	if m.lost != nil {
		return m.paint(term.Red, term.OneLine(fmt.Sprintf("lost since %s, trying again: %s", m.since.Format(time.TimeOnly), whyLost(m.lost))))
	}
	n := len(m.pages)
	switch {
	case m.read == nil:
		return ""
	case n > 0 && m.pages[n-1].err != nil:
		return m.paint(term.Red, term.OneLine(describe(m.pages[n-1].err)))
	case n > 0 && m.pages[n-1].kind != queuePage:
		return ""
	}
	var sum ops.Queue
	var queues int64
	r := rates{}
	for _, q := range m.read.queues {
		if n > 0 && q.Name != m.pages[n-1].name {
			continue
		}
		queues++
		sum.Ready, sum.Delayed = plus(sum.Ready, q.Ready), plus(sum.Delayed, q.Delayed)
		sum.Leased, sum.Failed = plus(sum.Leased, q.Leased), plus(sum.Failed, q.Failed)
		r = m.rates[q.Name]
	}
	text := plural(queues, "queue") + "  "
	if n > 0 {
		text = ""
	} else {
		r = rates{in: total(m.rates, func(r rates) []float64 { return r.in }), out: total(m.rates, func(r rates) []float64 { return r.out })}
	}
	failures := count(sum.Failed) + " failed"
	if sum.Failed.N > 0 {
		failures = m.paint(term.Red, failures)
	}
	text += fmt.Sprintf("%s ready  %s delayed  %s leased  %s  ", count(sum.Ready), count(sum.Delayed), count(sum.Leased), failures)
	in, out := "in "+topRate(r.lastIn())+"/s ", "out "+topRate(r.lastOut())+"/s "
	if left := (m.width - term.Width(text+in+out) - 2) / 2; left >= 4 {
		left = min(left, 30)
		return text + in + m.paint(term.Green, sparkline(r.in, left)) + "  " + out + m.paint(term.Green, sparkline(r.out, left))
	}
	return text + in + " " + out
}

func plus(a, b ops.Count) ops.Count {
	return ops.Count{N: a.N + b.N, Estimated: a.Estimated || b.Estimated}
}

// whyLost says in few words why a reading failed.
func whyLost(err error) string {
	var failed *pgconn.ConnectError
	if errors.As(err, &failed) {
		return innermost(tries(failed)[0]).Error()
	}
	return describe(err)
}

// middle is the lists or the page, in so many lines.
func (m topModel) middle(height int) []string {
	if m.help {
		return append([]string{""}, topHelp...)
	}
	n := len(m.pages)
	if n == 0 {
		return m.lists(height)
	}
	switch p := m.pages[n-1]; p.kind {
	case messagePage:
		lines := m.messageLines(p)
		from := clamp(p.scroll, len(lines)-height)
		return lines[from:min(len(lines), from+height)]
	case queuePage:
		tabs := []string{"ready messages", "failed messages"}
		for i := range tabs {
			if i == p.tab {
				tabs[i] = m.paint(term.Bold, "["+tabs[i]+"]")
			} else {
				tabs[i] = m.paint(term.Faint, " "+tabs[i]+" ")
			}
		}
		return append([]string{"", strings.Join(tabs, " ")}, m.pageList(p).draw(m.width, height-2, p.places[p.tab].key, true, m.paint)...)
	default:
		return append([]string{""}, m.pageList(p).draw(m.width, height-1, p.places[p.tab].key, true, m.paint)...)
	}
}

// messageLines is the text of a message in lines of the screen's width.
func (m topModel) messageLines(p page) []string {
	if !p.filledOnce {
		return []string{"reading …"}
	}
	text := strings.ReplaceAll(p.text, "\t", "    ")
	lines := term.Wrap(text, max(1, m.width))
	if m.filter == "" {
		return lines
	}
	var fitting []string
	for _, line := range lines {
		if strings.Contains(strings.ToLower(line), strings.ToLower(m.filter)) {
			fitting = append(fitting, line)
		}
	}
	return append(fitting, m.paint(term.Faint, fmt.Sprintf("%d of %d lines hold %q", len(fitting), len(lines), m.filter)))
}

// lists draws the lists of the first page. The one that has the keys gets the room that it wants before the others; where
// there is little, it stands alone.
func (m topModel) lists(height int) []string {
	if m.read == nil {
		return nil
	}
	const little, few = 11, 4
	if height < little {
		return append([]string{""}, m.sectionList(m.focus).draw(m.width, height-1, m.places[m.focus].key, true, m.paint)...)
	}
	var lists [sections]list
	var wanted, given [sections]int
	left := height - int(sections) // a blank line above each
	for s := range sections {
		lists[s] = m.sectionList(s)
		wanted[s] = 1 + max(1, len(lists[s].shown))
		given[s] = min(wanted[s], few)
		if s == m.focus {
			given[s] = 0
		}
	}
	for s := range sections {
		left -= given[s]
	}
	given[m.focus] = min(left, wanted[m.focus])
	left -= given[m.focus]
	for s := range sections {
		more := min(left, wanted[s]-given[s])
		given[s] += more
		left -= more
	}
	var lines []string
	for s := range sections {
		lines = append(lines, "")
		lines = append(lines, lists[s].draw(m.width, given[s], m.places[s].key, s == m.focus, m.paint)...)
	}
	return lines
}

// foot is the keys, or the filter.
func (m topModel) foot() string {
	switch {
	case m.typing:
		return "/" + term.OneLine(m.filter) + "▏  " + m.paint(term.Faint, "Enter keeps the filter, Esc takes it off")
	case m.help:
		return m.paint(term.Faint, "any key goes back")
	}
	keys := "↑↓ choose  Enter open  Tab next list  s S sort  / filter  ? help  q quit"
	if n := len(m.pages); n > 0 {
		switch m.pages[n-1].kind {
		case messagePage:
			keys = "↑↓ scroll  / filter  Esc back  ? help  q quit"
		case queuePage:
			keys = "↑↓ choose  Enter open  Tab ready or failed  s S sort  / filter  Esc back  q quit"
		default:
			keys = "↑↓ choose  Enter open  s S sort  / filter  Esc back  ? help  q quit"
		}
	}
	if m.filter != "" {
		keys = fmt.Sprintf("filter %q  ", term.OneLine(m.filter)) + keys
	}
	return m.paint(term.Faint, keys)
}

var topHelp = strings.Split(`  ↑ ↓ j k  PgUp PgDn  Home End   choose a line, or scroll a text
  Enter →                        open: queue, group of failures, message
  Esc ← Backspace                back; on the first page Esc ends the filter
  Tab  Shift-Tab                 next list, the one before; ready or failed
  s                              sort by the next column, ▾ shows which
  S                              sort the other way round
  /                              show only lines that hold a text
  r                              read now
  Space                          freeze the screen, and go on
  q  Ctrl-C                      quit

  ~ marks an estimate, - and · a rate that is unknown. What goes out is what
  arrived less what the backlog grew by. A late instance is red.
  To mend: sqlq error replay, sqlq queue purge, …; see sqlq --help.`, "\n")
