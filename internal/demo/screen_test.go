package demo

import (
	"strings"
	"testing"
	"time"
)

func TestTableFitsTerminal(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	s := newScreen(Options{Out: &text, Terminal: true, Width: 40})
	s.table([][]string{{"NO", "ERROR", "GROUP"}, {"7", "an error with \x1b[31mcolour and many words", "0123456789abcdef"}}, 1)
	if want := "  NO  ERROR\n  7   an error with \\u001b[31mcolour an…\n"; text.String() != want {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
	text.Reset()
	s = newScreen(Options{Out: &text})
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
