package term

import (
	"os"

	"golang.org/x/term"
)

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Size returns how many columns and lines a terminal has, or an error if the file is not a terminal.
func Size(f *os.File) (columns, lines int, err error) { return term.GetSize(int(f.Fd())) }

// Dumb reports whether, according to $TERM, the terminal does not support escape sequences.
func Dumb() bool { return os.Getenv("TERM") == "dumb" }
