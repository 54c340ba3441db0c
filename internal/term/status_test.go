package term_test

import (
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/term"
)

// A shorter text wipes out the longer one before it, by cells; one that is too long is cut; the end leaves nothing.
func TestStatus(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := term.Status{To: &out, Width: 10}
	s.End()
	s.Show("%d of %d", 1, 2)
	s.Show("日本語のエラー")
	s.Show("ok")
	s.End()
	s.End()
	if want := "\r1 of 2" + "\r日本語の…" + "\rok       " + "\r  \r"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	(&term.Status{}).Show("nobody is looking")
}

func TestPalette(t *testing.T) {
	for _, c := range []struct {
		mode          term.ColorMode
		terminal      bool
		noColor, kind string
		want          bool
	}{
		{term.ColorAuto, true, "", "xterm", true},
		{term.ColorAuto, false, "", "xterm", false},
		{term.ColorAuto, true, "1", "xterm", false},
		{term.ColorAuto, true, "", "dumb", false},
		{term.ColorAlways, false, "1", "dumb", true},
		{term.ColorNever, true, "", "xterm", false},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.kind)
		p := term.NewPalette(c.mode, c.terminal)
		if got := p.Paint(term.Red, "x") == "\x1b[31mx\x1b[0m"; got != c.want || p.Colored() != c.want || p.Paint(term.Plain, "x") != "x" || p.Paint(term.Red, "") != "" {
			t.Errorf("%+v: got %q", c, p.Paint(term.Red, "x"))
		}
	}
	if got := (term.Palette{}).Paint(term.Red, "x"); got != "x" {
		t.Errorf("no palette: got %q", got)
	}
}
