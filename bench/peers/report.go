package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/sqlq/sqlq/internal/lab"
)

// report is the result of a run. In the JSON every figure of a system is the median of its rounds.
type report struct {
	Server     string              `json:"server"`
	Settings   []setting           `json:"settings"`
	CPUs       int                 `json:"cpus"`
	LoadBefore string              `json:"load_before,omitempty"` // of the machine, over a minute
	LoadAfter  string              `json:"load_after,omitempty"`
	Seconds    float64             `json:"seconds"`
	Sizes      sizes               `json:"sizes"`
	BodyBytes  int                 `json:"body_bytes"`
	Systems    map[string]measured `json:"systems"`
	Ratios     map[string]float64  `json:"ratios"` // sqlq ÷ the other
	Missing    []absent            `json:"missing"`

	order []subject
}

// measured is a system with its figures.
type measured struct {
	Title    string `json:"title"`
	Version  string `json:"version"`
	Tuned    string `json:"tuned"`
	Contract string `json:"contract"`

	Drain    *float64 `json:"drain,omitempty"`    // messages/s
	Send16   *float64 `json:"send16,omitempty"`   // messages/s
	SendMany *float64 `json:"sendmany,omitempty"` // messages/s
	WAL      *float64 `json:"wal,omitempty"`      // bytes a message
	P50      *float64 `json:"p50_ms,omitempty"`
	P99      *float64 `json:"p99_ms,omitempty"`

	Rounds map[row]lab.Series `json:"rounds"` // the values whose medians these are
}

// absent is a system that is not measured.
type absent struct {
	Key   string `json:"key"`
	Title string `json:"title"`
	Why   string `json:"why"`

	failed bool // it is available, but did not work
}

// failure returns an error that names the systems that should have been measured and could not be.
func (r *report) failure() error {
	var errs []error
	for _, m := range r.Missing {
		if m.failed {
			errs = append(errs, fmt.Errorf("%s: %s", m.Title, m.Why))
		}
	}
	return errors.Join(errs...)
}

// ratio is a target of the project: sqlq ÷ another system.
type ratio struct {
	key    string
	row    row
	other  string
	title  string
	target float64
	least  bool // the target is a minimum; otherwise a maximum
}

var ratios = []ratio{
	{"drain_vs_river", rowDrain, "river", "drain ÷ River's, tuned", 8, true},
	{"send16_vs_river", rowSend16, "river", "single sends from 16 goroutines ÷ River's", 3, true},
	{"sendmany_vs_river_insertmanyfast", rowSendMany, "river", "SendMany ÷ River's InsertManyFast", 1.3, true},
	{"wal_vs_river", rowWAL, "river", "WAL a message ÷ River's", 0.25, false},
	{"p50_vs_river_tuned", rowP50, "river", "p50 ÷ River's, tuned", 1, false},
	{"p50_vs_river_defaults", rowP50, "river_defaults", "p50 ÷ River's, defaults", 0.05, false},
}

func newReport(size sizes, order []subject, missing []absent, values results) *report {
	order = slices.DeleteFunc(slices.Clone(order), func(s subject) bool { return len(values[s.key]) == 0 })
	r := &report{CPUs: runtime.NumCPU(), Sizes: size, BodyBytes: bodySize, Systems: map[string]measured{}, Ratios: map[string]float64{},
		Missing: append([]absent{}, missing...), order: order}
	for _, s := range order {
		m := measured{Title: s.title, Version: s.version, Tuned: s.tuned, Contract: s.contract, Rounds: values[s.key]}
		for what, into := range map[row]**float64{rowDrain: &m.Drain, rowSend16: &m.Send16, rowSendMany: &m.SendMany,
			rowWAL: &m.WAL, rowP50: &m.P50, rowP99: &m.P99} {
			if rounds := values[s.key][what]; len(rounds) > 0 {
				*into = new(rounds.Median())
			}
		}
		r.Systems[s.key] = m
	}
	for _, q := range ratios {
		if x, ok := r.ratioTo(q.row, q.other); ok {
			r.Ratios[q.key] = x
		}
	}
	return r
}

// ratioTo returns sqlq's figure ÷ another system's.
func (r *report) ratioTo(what row, other string) (float64, bool) {
	ours, theirs := r.Systems["sqlq"].Rounds[what], r.Systems[other].Rounds[what]
	if len(ours) == 0 || len(theirs) == 0 {
		return 0, false
	}
	return ours.Median() / theirs.Median(), true
}

func (r *report) write(w io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	_, err := io.WriteString(w, r.markdown())
	return err
}

// tables are the rows for people to read.
var tables = []struct {
	row   row
	title string
	note  string
	unit  string
	less  bool // less is better
}{
	{rowDrain, "Drain of a backlog", "A handler that decodes its message and does nothing else. From the first handled to the last.", "messages/s", false},
	{rowSend16, "Single sends from 16 goroutines", "Each in a transaction of its own, committed when the call returns. Nobody receives.", "messages/s", false},
	{rowSendMany, "Sends of many at once", "One goroutine.", "messages/s", false},
	{rowWAL, "WAL a message", "From the batch send until the message is handled, settled and the receiver has ended.", "bytes", true},
	{rowP50, "Latency, median", "From the call of send to the handler, with receivers that have nothing else to do.", "ms", true},
	{rowP99, "Latency, 99th percentile", "Of the same messages.", "ms", true},
}

func (r *report) markdown() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# sqlq beside its peers\n")
	p("%s; %d CPUs%s. %d rounds, in turns; medians, and behind them the least and the most. Bodies of %d bytes. "+
		"Backlog %s messages, sent %s at a time; drains are cut off after %v. Latency at about %.0f messages/s. The run took %.0f s.\n",
		r.Server, r.CPUs, r.load(), r.Sizes.Rounds, r.BodyBytes, thousands(float64(r.Sizes.Backlog)),
		thousands(float64(r.Sizes.Batch)), r.Sizes.DrainFor, r.Sizes.Rate, r.Seconds)
	var set []string
	for _, s := range r.Settings {
		set = append(set, s.Name+" = "+s.Value)
	}
	p("Settings: %s.", strings.Join(set, ", "))

	for _, t := range tables {
		lines := r.lines(t.row, t.less)
		if len(lines) == 0 {
			continue
		}
		p("\n## %s\n\n%s\n", t.title, t.note)
		p("| | %s | from – to | sqlq ÷ it |\n|---|---:|---:|---:|", t.unit)
		for _, line := range lines {
			p("%s", line)
		}
	}
	if len(r.Ratios) > 0 {
		p("\n## Targets\n\n| ratio | is | should be | |\n|---|---:|---:|---|")
		for _, q := range ratios {
			if x, ok := r.Ratios[q.key]; ok {
				word, met := "at most", x <= q.target
				if q.least {
					word, met = "at least", x >= q.target
				}
				p("| %s | %s | %s %s | %s |", q.title, significant(x), word, significant(q.target), map[bool]string{true: "met", false: "**missed**"}[met])
			}
		}
	}
	r.behind(p)
	p("\n## How each was set\n")
	for _, s := range r.order {
		p("- **%s** (%s): %s", s.title, s.version, s.tuned)
	}
	p("\n## Where their contracts differ\n")
	told := map[string]bool{}
	for _, s := range r.order {
		if !told[s.contract] {
			told[s.contract] = true
			name, _, _ := strings.Cut(s.title, ", tuned")
			p("- **%s**: %s", name, s.contract)
		}
	}
	if len(r.Missing) > 0 {
		p("\n## Not measured\n")
		for _, m := range r.Missing {
			p("- %s: %s", m.Title, m.Why)
		}
	}
	return b.String()
}

// behind lists the rows in which sqlq is not the best.
func (r *report) behind(p func(format string, args ...any)) {
	var lines []string
	for _, t := range tables {
		for _, s := range r.order {
			if x, ok := r.ratioTo(t.row, s.key); ok && s.key != "sqlq" && (x > 1) == t.less && x != 1 {
				lines = append(lines, fmt.Sprintf("- %s: %s (sqlq ÷ it is %s)", t.title, s.title, significant(x)))
			}
		}
	}
	if _, measured := r.Systems["sqlq"]; !measured {
		return
	}
	p("\n## Where sqlq is not ahead\n")
	if len(lines) == 0 {
		lines = []string{"Nowhere."}
	}
	p("%s", strings.Join(lines, "\n"))
}

func (r *report) load() string {
	if r.LoadBefore == "" {
		return ""
	}
	return fmt.Sprintf(" (load average before the run %s, at its end %s)", r.LoadBefore, r.LoadAfter)
}

// lines returns a table's lines, the best first.
func (r *report) lines(what row, less bool) (lines []string) {
	type entry struct {
		key    string
		median float64
	}
	var entries []entry
	for _, s := range r.order {
		if rounds := r.Systems[s.key].Rounds[what]; len(rounds) > 0 {
			entries = append(entries, entry{s.key, rounds.Median()})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		if (a.median < b.median) == less {
			return -1
		}
		return 1
	})
	for _, e := range entries {
		rounds := r.Systems[e.key].Rounds[what]
		title, against := r.Systems[e.key].Title, ""
		if x, ok := r.ratioTo(what, e.key); ok && e.key != "sqlq" {
			against = significant(x)
		}
		if e.key == "sqlq" {
			title = "**sqlq**"
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s – %s | %s |", title, thousands(e.median), thousands(slices.Min(rounds)), thousands(slices.Max(rounds)), against))
	}
	return lines
}

// thousands writes a number for people: 123,456 or 12.3 or 0.54.
func thousands(x float64) string {
	if x < 100 {
		return significant(x)
	}
	return lab.Thousands(int64(math.Round(x)))
}

// significant writes a number with three significant digits, and never with an exponent.
func significant(x float64) string {
	if x == 0 {
		return "0"
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	text := strconv.FormatFloat(x, 'f', decimals, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}
