package term

import (
	"errors"
	"os"
)

// ColorMode says whether text is coloured. It is the value of a flag.
type ColorMode string

// Modes.
const (
	ColorAuto   ColorMode = "auto"
	ColorAlways ColorMode = "always"
	ColorNever  ColorMode = "never"
)

// String implements pflag.Value.
func (m *ColorMode) String() string { return string(*m) }

// Type implements pflag.Value.
func (m *ColorMode) Type() string { return "WHEN" }

// Set implements pflag.Value.
func (m *ColorMode) Set(text string) error {
	switch ColorMode(text) {
	case ColorAuto, ColorAlways, ColorNever:
		*m = ColorMode(text)
		return nil
	}
	return errors.New("it must be auto, always or never")
}

// Style says how a terminal shows text: the numbers of an SGR escape sequence (ECMA-48).
type Style string

// Styles.
const (
	Plain   Style = ""
	Bold    Style = "1"
	Faint   Style = "2"
	Reverse Style = "7"
	Red     Style = "31"
	Green   Style = "32"
	Yellow  Style = "33"
	Cyan    Style = "36"
)

// Palette applies styles to text, or leaves it as it is, as the zero value does.
type Palette struct{ colored bool }

// NewPalette returns a palette for an output, which may be a terminal. In the mode ColorAuto it has colours on a terminal, unless
// NO_COLOR is set (no-color.org) or the terminal is dumb.
func NewPalette(mode ColorMode, terminal bool) Palette {
	return Palette{mode == ColorAlways || mode == ColorAuto && terminal && os.Getenv("NO_COLOR") == "" && !Dumb()}
}

// Colored reports whether the palette has colours.
func (p Palette) Colored() bool { return p.colored }

// Paint applies a style to text.
func (p Palette) Paint(s Style, text string) string {
	if s == Plain || text == "" || !p.colored {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}
