package cli

import (
	"context"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// topModel is the state of the screen: what was read last, and where the operator is. Update changes it, View draws it, and
// neither does anything else: what is read from the database comes back as a message.
type topModel struct {
	ctx    context.Context
	source topSource
	every  time.Duration
	where  string // names the database
	paint  func(term.Style, string) string
	text   func(ops.FailedMessage) string // all that is known of a failed message

	width, height int

	read  *snapshot // nil: none yet
	rates map[string]rates
	lost  error // why the last reading failed
	since time.Time

	reading bool
	turn    int // of the clock: only its last tick counts
	frozen  bool

	focus  section
	places [sections]place
	filter string
	typing bool
	help   bool
	pages  []page // opened, one from the other
}

// topSource is what the screen reads from.
type topSource struct {
	sample func(context.Context) (snapshot, error)
	peek   func(ctx context.Context, queue string, n int) ([]ops.Message, error)
	failed func(context.Context, ops.Filter) ([]ops.FailedMessage, error)
	show   func(ctx context.Context, name string) (ops.FailedMessage, error)
}

// readWithin is how long a reading may take before the database is said to be lost.
const readWithin = 10 * time.Second

// section is a list of the first page.
type section int

const (
	queuesSection section = iota
	groupsSection
	instancesSection
	sections
)

// place is where the operator is in a list, and how it is sorted.
type place struct {
	key      string // of the chosen row; "": the first
	sort     int    // column
	reversed bool
}

// The messages that Update gets from the database and the clock.
type (
	sampledMsg struct {
		read snapshot
		err  error
	}
	tickMsg struct{ turn int }
	pageMsg struct { // what a page lists
		page page
		err  error
	}
)

func newTopModel(ctx context.Context, source topSource, every time.Duration) topModel {
	m := topModel{ctx: ctx, source: source, every: every, width: 80, height: 24, reading: true,
		paint: func(_ term.Style, text string) string { return text }, text: func(failed ops.FailedMessage) string { return term.Visible(string(failed.Body)) }}
	m.places[groupsSection].sort = 2 // the newest first
	return m
}

func (m topModel) Init() tea.Cmd { return m.sample() }

func (m topModel) sample() tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, readWithin)
		defer cancel()
		read, err := m.source.sample(ctx)
		return sampledMsg{read, err}
	}
}

func (m topModel) tick() tea.Cmd {
	turn := m.turn
	return tea.Tick(m.every, func(time.Time) tea.Msg { return tickMsg{turn} })
}

func (m topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m.press(msg)
	case tickMsg:
		if msg.turn != m.turn {
			return m, nil
		}
		if m.frozen {
			return m, m.tick()
		}
		return m.readAnew()
	case sampledMsg:
		m.reading = false
		m.turn++
		if msg.err != nil {
			if m.lost == nil {
				m.since = time.Now()
			}
			m.lost = msg.err
			return m, m.tick()
		}
		m.lost = nil
		m.rates = ratesAfter(m.rates, m.read, &msg.read)
		m.read = &msg.read
		return m, m.tick()
	case pageMsg:
		for i, p := range m.pages {
			if p.kind == msg.page.kind && p.name == msg.page.name {
				m.pages[i] = p.filled(msg.page, msg.err)
			}
		}
	}
	return m, nil
}

// readAnew reads what is on the screen, unless that goes on already.
func (m topModel) readAnew() (topModel, tea.Cmd) {
	if m.reading {
		return m, nil
	}
	m.reading = true
	if n := len(m.pages); n > 0 && m.pages[n-1].kind != messagePage {
		return m, tea.Batch(m.sample(), m.fill(m.pages[n-1]))
	}
	return m, m.sample()
}

// press does what a key says.
func (m topModel) press(key tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	name := key.String()
	if name == "ctrl+c" {
		return m, tea.Quit
	}
	if m.typing {
		return m.typed(name, key.Key().Text), nil
	}
	if m.help {
		m.help = false
		if name != "q" {
			return m, nil
		}
	}
	m.pages = slices.Clone(m.pages) // the model before this one keeps its own
	switch name {
	case "q":
		return m, tea.Quit
	case "?":
		m.help = true
	case "/":
		m.typing = true
	case "r":
		return m.readAnew()
	case "space":
		m.frozen = !m.frozen
	case "esc", "backspace", "left", "h":
		switch {
		case len(m.pages) > 0:
			m.pages, m.filter = m.pages[:len(m.pages)-1], ""
		case name == "esc":
			m.filter = ""
		}
	case "tab", "shift+tab":
		m.turnTo(name == "tab")
	case "s":
		at := m.at()
		at.sort, at.reversed = (at.sort+1)%len(m.list().columns), false
	case "S":
		at := m.at()
		at.reversed = !at.reversed
	case "enter", "right", "l":
		return m.open()
	default:
		m.move(name)
	}
	return m, nil
}

// typed puts a key into the filter.
func (m topModel) typed(name, text string) topModel {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if runes := []rune(m.filter); len(runes) > 0 {
			m.filter = string(runes[:len(runes)-1])
		}
	default:
		m.filter += text
	}
	return m
}

// turnTo goes to the next list, or the one before.
func (m *topModel) turnTo(next bool) {
	step := 1
	if !next {
		step = -1
	}
	if n := len(m.pages); n > 0 {
		if m.pages[n-1].kind == queuePage {
			m.pages[n-1].tab = 1 - m.pages[n-1].tab
		}
		return
	}
	m.focus = (m.focus + section(step) + sections) % sections
}

// at is the operator's place in the list that has the keys.
func (m *topModel) at() *place {
	if n := len(m.pages); n > 0 {
		return &m.pages[n-1].places[m.pages[n-1].tab]
	}
	return &m.places[m.focus]
}

// move goes up and down, in a list or a text.
func (m *topModel) move(key string) {
	const most = 1 << 30
	step := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -m.pageful(), "pgdown": m.pageful(),
		"home": -most, "g": -most, "end": most, "G": most}[key]
	if step == 0 {
		return
	}
	if n := len(m.pages); n > 0 && m.pages[n-1].kind == messagePage {
		p := &m.pages[n-1]
		p.scroll = clamp(p.scroll+step, len(m.messageLines(*p))-m.pageful())
		return
	}
	rows := m.list().shown
	if len(rows) == 0 {
		return
	}
	m.at().key = rows[clamp(m.list().chosen(m.at().key)+step, len(rows)-1)].key
}

func clamp(n, highest int) int { return max(0, min(n, highest)) }

// pageful is how many lines of a list or a text are on the screen, roughly.
func (m topModel) pageful() int { return max(1, m.height-6) }
