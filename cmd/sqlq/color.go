package main

import (
	"errors"
	"os"
)

// colorMode says whether text is coloured; a flag.
type colorMode string

const (
	colorAuto   colorMode = "auto"
	colorAlways colorMode = "always"
	colorNever  colorMode = "never"
)

func (m *colorMode) String() string { return string(*m) }
func (m *colorMode) Type() string   { return "WHEN" }

func (m *colorMode) Set(text string) error {
	switch colorMode(text) {
	case colorAuto, colorAlways, colorNever:
		*m = colorMode(text)
		return nil
	}
	return errors.New("there are auto, always and never")
}

// style is how a terminal shows text: the numbers of an SGR escape sequence (ECMA-48).
type style string

const (
	plainText style = ""
	bold      style = "1"
	faint     style = "2"
	reverse   style = "7"
	red       style = "31"
	green     style = "32"
	yellow    style = "33"
)

// paint puts text for standard output into a style, where colours are wanted.
func (a *app) paint(s style, text string) string {
	if s == plainText || text == "" || !a.colored() {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// colored says whether standard output gets colours; see no-color.org for NO_COLOR.
func (a *app) colored() bool {
	return a.color == colorAlways || a.color == colorAuto && a.outTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
