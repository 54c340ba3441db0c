package term

import (
	"os"

	"golang.org/x/term"
)

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Size is how many columns and lines a terminal has; an error if the file is none.
func Size(f *os.File) (columns, lines int, err error) { return term.GetSize(int(f.Fd())) }

// Dumb reports whether the terminal obeys no escape sequences, as $TERM says.
func Dumb() bool { return os.Getenv("TERM") == "dumb" }
