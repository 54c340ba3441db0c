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
func printList[T any](e *env, items []T, t *term.Table) error {
	switch e.format {
	case formatJSON, formatYAML:
		if items == nil {
			items = []T{}
		}
		return e.printData(items)
	case formatJSONL:
		for _, item := range items {
			if err := e.printData(item); err != nil {
				return err
			}
		}
		return nil
	}
	if t == nil {
		return nil
	}
	return e.printTable(t)
}

// printTable prints a table into the width of the terminal, and says what did not find room.
func (e *env) printTable(t *term.Table) error {
	t.Palette = e.palette()
	err := t.Print(e.out, e.width)
	if t.LeftOut != nil {
		e.say("no room for %s; -o yaml shows all", strings.Join(t.LeftOut, ", "))
	}
	return err
}

// palette is that of standard output.
func (e *env) palette() term.Palette { return term.NewPalette(e.color, e.outTerminal) }

// paint puts text for standard output into a style, where colours are wanted.
func (e *env) paint(s term.Style, text string) string { return e.palette().Paint(s, text) }

// printOne prints an item as JSON, or the text that write writes where a table is wanted.
func (e *env) printOne(item any, write func(w io.Writer)) error {
	if e.format != formatTable {
		return e.printData(item)
	}
	var text bytes.Buffer
	write(&text)
	_, err := e.out.Write(text.Bytes())
	return err
}

// done tells what a command did: the sentence on standard error, or as data where JSON is wanted.
func (e *env) done(outcome any, sentence string, args ...any) error {
	if e.format != formatTable {
		return e.printData(outcome)
	}
	e.say(sentence, args...)
	return nil
}

// say writes a line for the operator.
func (e *env) say(sentence string, args ...any) {
	fmt.Fprintln(e.err, term.Visible(fmt.Sprintf(sentence, args...)))
}

// printData prints what is not a table.
func (e *env) printData(v any) error {
	if e.format == formatYAML {
		return e.printYAML(v)
	}
	text, err := jsonLine(v)
	if err != nil {
		return err
	}
	if e.format == formatJSON {
		text = laidOut(text)
	}
	_, err = e.out.Write(append(escaped(text), '\n'))
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
func (e *env) when(t time.Time) string {
	if !e.outTerminal {
		return fullTime(t)
	}
	if d := time.Since(t); d >= 0 {
		return age(d) + " ago"
	} else {
		return "in " + age(-d)
	}
}

// whenInFull writes a time in full, and how long ago where somebody looks.
func (e *env) whenInFull(t time.Time) string {
	if !e.outTerminal {
		return fullTime(t)
	}
	return fullTime(t) + " (" + e.when(t) + ")"
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
