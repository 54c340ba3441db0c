package term_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sqlq/sqlq/internal/term"
)

// What comes from messages must not steer the operator's terminal, nor hide from the operator.
func TestVisible(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain äöü 日本 👩‍💻":              "plain äöü 日本 👩‍💻",
		"Zürcher, 山田 太郎, نورة":          "Zürcher, 山田 太郎, نورة",
		"e\u0301, 👍🏿, \ufffd stays":     "e\u0301, 👍🏿, \ufffd stays",
		"\x1b[31mred\x1b[0m \x07":       `\u001b[31mred\u001b[0m \u0007`,
		"bell\a\r\nline\t":              `bell\u0007\u000d` + "\nline\t",
		"\u202eoverridden\u2066":        `\u202eoverridden\u2066`,
		"\u2028 \u2029 \ufeff":          `\u2028 \u2029 \ufeff`,
		"pass\u200bword soft\u00ad":     `pass\u200bword soft\u00ad`,
		"\x9b31m \xff":                  `\x9b31m \xff`,
		"c1 \u009b \u0085":              `c1 \u009b \u0085`,
		"\U000e0041 tag":                `\U000e0041 tag`,
		"م\u200cخ क\u094d\u200dष":       "م\u200cخ क\u094d\u200dष",
		"a\u200db 日\u200d b\u200d日":     `a\u200db 日\u200d b\u200d日`,
		"日\u200d\u200d本 日\u200d \u200d": `日\u200d\u200d本 日\u200d \u200d`,
	} {
		if got := term.Visible(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"  a\n\n b\tc\r\n":             "a b c",
		"one\ntwo\r\nthree\tfour":      "one two three four",
		"\v\f\u0085 \u2028 no\u00a0nl": `\u000b\u000c\u0085 \u2028 no` + "\u00a0nl",
	} {
		if got := term.OneLine(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzVisible(f *testing.F) {
	for _, seed := range []string{"", "plain", "\x1b[31m", "👩‍💻", "a\u200db\u202e", "\xff\u200d", "日\u200d本"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown := term.Visible(text)
		if strings.ContainsFunc(shown, term.Obeyed) || !utf8.ValidString(shown) {
			t.Errorf("%q becomes %q", text, shown)
		}
		if again := term.Visible(shown); again != shown {
			t.Errorf("%q becomes %q, and that %q", text, shown, again)
		}
		if line := term.OneLine(text); strings.ContainsAny(line, "\n\t\r") || line != term.OneLine(line) {
			t.Errorf("%q is no line: %q", text, line)
		}
	})
}
