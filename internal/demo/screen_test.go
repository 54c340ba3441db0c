package demo

import (
	"strings"
	"testing"
	"time"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Zürcher, 山田 太郎, نورة":      "Zürcher, 山田 太郎, نورة",
		"\x1b[31mred\x1b[0m \x07":   `\u001b[31mred\u001b[0m \u0007`,
		"one\ntwo\r\nthree\tfour":   `one\u000atwo\u000d\u000athree\u0009four`,
		"\u202eoverridden\u2066":    `\u202eoverridden\u2066`,
		"\u2028 \ufeff \u200b":      `\u2028 \ufeff \u200b`,
		"\x9b31m \xff":              `\x9b31m \xff`,
		"\u0085":                    `\u0085`,
		"\U000e0041 tag":            `\U000e0041 tag`,
		"e\u0301, 👍🏿, \ufffd stays": "e\u0301, 👍🏿, \ufffd stays",
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestTableFitsTerminal(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	s := &screen{out: &text, terminal: true, width: 40}
	s.table([][]string{{"NO", "ERROR", "GROUP"}, {"7", "an error with \x1b[31mcolour and many words", "0123456789abcdef"}}, 1)
	if want := "  NO  ERROR\n  7   an error with \\u001b[31mcolour an…\n"; text.String() != want {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
	text.Reset()
	s.terminal = false
	s.table([][]string{{"NO", "ERROR", "GROUP"}, {"7", "an error of many words in a file", "0123456789abcdef"}}, 1)
	if want := "  NO  ERROR                             GROUP\n  7   an error of many words in a file  0123456789abcdef\n"; text.String() != want {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
}

func TestCourse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		backlog []int64
		want    string
	}{
		{[]int64{0}, "0"},
		{[]int64{3, 8, 5, 0}, "0 → 8 → 5 → 0"},
		{[]int64{10, 240, 200, 160, 120, 80, 40, 0}, "0 → 240 → 200 → 160 → 120 → 80 → 0"},
	} {
		if got := course(tt.backlog); got != tt.want {
			t.Errorf("course(%v) = %q, want %q", tt.backlog, got, tt.want)
		}
	}
}

func TestBrief(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		1_234 * time.Microsecond: "1.2 ms", 4 * time.Millisecond: "4 ms", 312 * time.Millisecond: "312 ms", 2_940 * time.Millisecond: "2.9 s",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v) = %q, want %q", d, got, want)
		}
	}
}
