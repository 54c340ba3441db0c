package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Help fits the terminal, but for examples and what is laid out by hand.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	for _, width := range []int{60, 80, 200} {
		var paths [][]string
		leaves(tree(), func(c *cobra.Command) { paths = append(paths, strings.Fields(below(c))) })
		for _, path := range paths {
			var out strings.Builder
			s := streams{in: strings.NewReader(""), out: &out, err: &out, outTerminal: true, width: width}
			if code := run(t.Context(), append(path, "--help"), s); code != 0 {
				t.Fatalf("%q: exit code %d\n%s", path, code, &out)
			}
			text, _, _ := strings.Cut(out.String(), "\nUsage:")
			for _, line := range strings.Split(text, "\n") {
				if len([]rune(line)) > width && !strings.HasPrefix(line, " ") {
					t.Errorf("%q at width %d: %q", path, width, line)
				}
			}
		}
	}
	const text = "one two three\nfour\n\n  laid out by hand\nfive"
	if got := fitted(text, 9); got != "one two\nthree\nfour\n\n  laid out by hand\nfive" {
		t.Errorf("got %q", got)
	}
	if fitted(text, 0) != text {
		t.Error("changed without need")
	}
}
