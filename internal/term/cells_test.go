package term_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"

	"github.com/sqlq/sqlq/internal/term"
)

func TestWidth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"": 0, "plain": 5, "日本": 4, "ｱ": 1, "한글": 4, "👩‍💻": 2, "👨‍👩‍👧‍👦": 2, "🇯🇵": 2, "1️⃣": 2, "❤️": 2, "👍🏿": 2, "e\u0301": 1, "…": 1,
		"\x1b[31mred\x1b[0m": 3,
	} {
		if got := term.Width(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"plain", 5, "plain"},
		{"plain", 4, "pla…"},
		{"plain", 1, "…"},
		{"plain", 0, ""},
		{"plain", -1, ""},
		{"a b c", 3, "a…"}, // no blank before the ellipsis
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"}, // three cells: the next would take two more
		{"👨‍👩‍👧‍👦👩‍💻", 4, "👨‍👩‍👧‍👦👩‍💻"},
		{"👨‍👩‍👧‍👦👩‍💻", 3, "👨‍👩‍👧‍👦…"},
		{"🇯🇵🇩🇪", 3, "🇯🇵…"},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
		{"\x1b[31mredder\x1b[0m", 4, "\x1b[31mred\x1b[0m…"},
	} {
		if got := term.Cut(c.text, c.width); got != c.want {
			t.Errorf("%q to %d: got %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestClipAndWrap(t *testing.T) {
	t.Parallel()
	if got := term.Clip("日本語", 5); got != "日本" {
		t.Errorf("clipped to %q", got)
	}
	if got := term.Clip("\x1b[1mbold\x1b[0m", 2); got != "\x1b[1mbo\x1b[0m" {
		t.Errorf("clipped to %q", got)
	}
	if got := term.Wrap("日本語\nx  👩‍💻👩‍💻", 5); !slices.Equal(got, []string{"日本", "語", "x  👩‍💻", "👩‍💻"}) {
		t.Errorf("wrapped to %q", got)
	}
}

// What is cut fits, is as long as fits, and ends between two characters as a reader sees them.
func FuzzCut(f *testing.F) {
	for _, seed := range []string{"", "plain", "日本語のエラー", "👨‍👩‍👧‍👦 family", "🇯🇵🇩🇪", "e\u0301te\u0301", "\x1b[31m", "می\u200cخواهم", "\u0301x", "क\u094d\u200dष", "a  b"} {
		f.Add(seed, 5)
	}
	f.Fuzz(func(t *testing.T, text string, width int) {
		text = term.OneLine(text)
		width %= 100
		cut := term.Cut(text, width)
		if term.Width(text) <= width {
			if cut != text {
				t.Fatalf("%q fits %d, and becomes %q", text, width, cut)
			}
			return
		}
		if got := term.Width(cut); got > max(0, width) {
			t.Fatalf("%q to %d takes %d: %q", text, width, got, cut)
		}
		if width < 1 {
			return
		}
		kept, is := strings.CutSuffix(cut, "…")
		if !is {
			t.Fatalf("%q to %d is %q", text, width, cut)
		}
		prefix := ""
		for rest := text; rest != ""; {
			character, cells := ansi.FirstGraphemeCluster(rest, ansi.GraphemeWidth)
			if term.Width(prefix)+cells > width-1 {
				break
			}
			prefix, rest = prefix+character, rest[len(character):]
		}
		if strings.TrimRight(prefix, " ") != kept {
			t.Fatalf("%q to %d keeps %q, not %q", text, width, kept, prefix)
		}
	})
}
