package cli

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sqlq/sqlq/internal/term"
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
	return errors.New("there are table, json, jsonl and yaml")
}

// printList prints items as JSON, or t where a table is wanted, and nothing there when t has no rows or is nil.
func printList[T any](a *app, items []T, t *term.Table) error {
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
	return a.printTable(t)
}

// printTable prints a table into the width of the terminal, and says what did not find room.
func (a *app) printTable(t *term.Table) error {
	t.Palette = a.palette()
	err := t.Print(a.out, a.width)
	if t.LeftOut != nil {
		a.say("no room for %s; -o yaml shows all", strings.Join(t.LeftOut, ", "))
	}
	return err
}

// palette is that of standard output.
func (a *app) palette() term.Palette { return term.NewPalette(a.color, a.outTerminal) }

// paint puts text for standard output into a style, where colours are wanted.
func (a *app) paint(s term.Style, text string) string { return a.palette().Paint(s, text) }

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
func (a *app) say(sentence string, args ...any) {
	fmt.Fprintln(a.err, term.Visible(fmt.Sprintf(sentence, args...)))
}

// printData prints what is not a table.
func (a *app) printData(v any) error {
	if a.format == formatYAML {
		return a.printYAML(v)
	}
	text, err := jsonLine(v)
	if err != nil {
		return err
	}
	if a.format == formatJSON {
		text = laidOut(text)
	}
	_, err = a.out.Write(append(escaped(text), '\n'))
	return err
}

// field writes a line "name  value", unless there is no value.
func field(w io.Writer, name, value string) {
	if value != "" {
		fmt.Fprintf(w, "%-12s  %s\n", name, term.OneLine(value))
	}
}

// block writes a text of several lines below its name, unless there is none.
func block(w io.Writer, name, text string) {
	if text != "" {
		text = term.Visible(strings.TrimRight(text, "\n"))
		fmt.Fprintf(w, "\n%s\n  %s\n", name, strings.ReplaceAll(text, "\n", "\n  "))
	}
}

// writeBody writes a message's body below its name: text as it is, JSON laid out, everything else in base64.
func writeBody(w io.Writer, body []byte) {
	if utf8.Valid(body) {
		block(w, "body", pretty(body))
	} else {
		block(w, "body, in base64", base64.StdEncoding.EncodeToString(body))
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
