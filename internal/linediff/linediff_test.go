package linediff_test

import (
	"strings"
	"testing"

	"github.com/sqlq/sqlq/internal/linediff"
)

func TestBetween(t *testing.T) {
	numbered := func(from, to int, changed map[int]string) string {
		var lines []string
		for i := from; i <= to; i++ {
			line := strings.Repeat("x", i%5+1) + " " + string(rune('a'+i%26))
			if other, there := changed[i]; there {
				line = other
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "\n")
	}
	for _, c := range []struct{ was, is, want string }{
		{"a", "a", ""},
		{"", "", ""},
		{"a", "b", "- a\n+ b\n"},
		{"a\nb\nc", "a\nc", "  a\n- b\n  c\n"},
		{"a\nc", "a\nb\nc\nd", "  a\n+ b\n  c\n+ d\n"},
		{"a\nb", "b\na", "- a\n  b\n+ a\n"},
	} {
		if got := linediff.Between(c.was, c.is); got != c.want {
			t.Errorf("%q to %q: got\n%s", c.was, c.is, got)
		}
	}
	far := linediff.Between(numbered(1, 40, nil), numbered(1, 40, map[int]string{3: "first", 30: "second"}))
	if strings.Count(far, "\n") != 2+2+3+2+1+3+3 || strings.Count(far, "…") != 1 || !strings.Contains(far, "+ first\n") || !strings.Contains(far, "+ second\n") {
		t.Errorf("two changes far apart:\n%s", far)
	}
	long := linediff.Between(strings.Repeat("a\n", 3000), strings.Repeat("b\n", 3000))
	if strings.Count(long, "- a\n") != 3000 || strings.Count(long, "+ b\n") != 3000 {
		t.Error("lines of long texts are missing")
	}
}
