package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// format is how data is printed; a flag.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"  // one document
	formatJSONL format = "jsonl" // an object a line
	formatYAML  format = "yaml"  // one document
)

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "FORMAT" }

func (f *format) Set(text string) error {
	switch format(text) {
	case formatTable, formatJSON, formatJSONL, formatYAML:
		*f = format(text)
		return nil
	}
	return fmt.Errorf("there are table, json, jsonl and yaml")
}

// printList prints items as JSON, or t where a table is wanted, and nothing there when t has no rows or is nil.
func printList[T any](a *app, items []T, t *table) error {
	switch a.format {
	case formatJSON, formatYAML:
		if items == nil {
			items = []T{}
		}
		return a.printData(items)
	case formatJSONL:
		for _, item := range items {
			if err := a.printData(item); err != nil {
				return err
			}
		}
		return nil
	}
	if t == nil {
		return nil
	}
	t.paint = a.paint
	return t.print(a.out, a.width)
}

// printOne prints an item as JSON, or the text that write writes where a table is wanted.
func (a *app) printOne(item any, write func(w io.Writer)) error {
	if a.format != formatTable {
		return a.printData(item)
	}
	var text bytes.Buffer
	write(&text)
	_, err := a.out.Write(text.Bytes())
	return err
}

// done tells what a command did: the sentence on standard error, or as data where JSON is wanted.
func (a *app) done(outcome any, sentence string, args ...any) error {
	if a.format != formatTable {
		return a.printData(outcome)
	}
	a.say(sentence, args...)
	return nil
}

// say writes a line for the operator.
func (a *app) say(sentence string, args ...any) { fmt.Fprintf(a.err, sentence+"\n", args...) }

// printData prints what is not a table: as YAML with the names and the order that it has as JSON.
func (a *app) printData(v any) error {
	if a.format == formatYAML {
		return a.printYAML(v)
	}
	out := json.NewEncoder(a.out)
	out.SetEscapeHTML(false)
	if a.format == formatJSON {
		out.SetIndent("", "  ")
	}
	return out.Encode(v)
}

func (a *app) printYAML(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil { // JSON is YAML
		return err
	}
	plain(&document)
	out := yaml.NewEncoder(a.out)
	out.SetIndent(2)
	return errors.Join(out.Encode(&document), out.Close())
}

// plain takes the style of JSON off a YAML document.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}

// body is a message body in JSON output: as JSON where it is some, else in base64, which BodyEncoding then says.
type body struct {
	Body         any    `json:"body"`
	BodyEncoding string `json:"body_encoding,omitempty"`
}

func bodyOf(b []byte) body {
	if json.Valid(b) && utf8.Valid(b) {
		return body{Body: json.RawMessage(b)}
	}
	return body{Body: b, BodyEncoding: "base64"}
}

// headersOf returns headers for JSON output, where there is always an object.
func headersOf(headers json.RawMessage) json.RawMessage {
	if headers == nil {
		return json.RawMessage(`{}`)
	}
	return headers
}

// table is text in columns.
type table struct {
	columns []column
	rows    [][]string
	paint   func(style, string) string // nil: no colours
}

type column struct {
	name  string
	right bool // aligned to the right, as numbers are
	cut   bool // gives way where the terminal is too narrow

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

// always is the style of a column all of whose cells look the same.
func always(s style) func(cell string) style { return func(string) style { return s } }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

const columnGap = "  "

// print prints the table with its names above. A width other than 0 is that of the terminal, into which the columns that
// may be cut are made to fit.
func (t *table) print(w io.Writer, width int) error {
	if len(t.rows) == 0 {
		return nil
	}
	widths := make([]int, len(t.columns))
	total := len(columnGap) * (len(widths) - 1)
	lines := make([][]string, 0, len(t.rows)+1)
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = strings.ToUpper(c.name)
	}
	lines = append(lines, names)
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = oneLine(cell)
		}
		lines = append(lines, cells)
	}
	for i := range widths {
		for _, line := range lines {
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i]))
		}
		total += widths[i]
	}
	for i, c := range t.columns {
		if c.cut && width > 0 && total > width {
			narrower := min(widths[i], max(utf8.RuneCountInString(names[i]), 12, widths[i]-(total-width)))
			total -= widths[i] - narrower
			widths[i] = narrower
		}
	}
	var out bytes.Buffer
	for n, line := range lines {
		gap := "" // blanks before the next cell; those at the end of a line are left out
		for i, cell := range line {
			cell = cut(cell, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
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

// cut shortens text to so many characters.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:max(0, width-1)]), " ") + "…"
}

// oneLine makes text from outside fit to stand in a line of a terminal: white space becomes single blanks, and what a
// terminal would obey is shown instead.
func oneLine(text string) string {
	return visible(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\r' }), " "))
}

// visible shows the characters that a terminal would obey, save line ends and tabs.
func visible(text string) string {
	if !strings.ContainsFunc(text, obeyed) && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if obeyed(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func obeyed(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Bidi_Control) && r != '\n' && r != '\t'
}

// field writes a line "name  value", unless there is no value.
func field(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "%-12s  %s\n", name, oneLine(value))
	}
}

// block writes a text of several lines below its name, unless there is none.
func block(w io.Writer, name, text string) {
	if text != "" {
		text = visible(strings.TrimRight(text, "\n"))
		fmt.Fprintf(w, "\n%s\n  %s\n", name, strings.ReplaceAll(text, "\n", "\n  "))
	}
}

// when writes a time: how long ago where somebody looks, else in full.
func (a *app) when(t time.Time) string {
	if !a.outTerminal {
		return fullTime(t)
	}
	if d := time.Since(t); d >= 0 {
		return age(d) + " ago"
	} else {
		return "in " + age(-d)
	}
}

// whenInFull writes a time in full, and how long ago where somebody looks.
func (a *app) whenInFull(t time.Time) string {
	if !a.outTerminal {
		return fullTime(t)
	}
	return fullTime(t) + " (" + a.when(t) + ")"
}

func fullTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// age writes a duration in its largest unit.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// plural writes a number with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
