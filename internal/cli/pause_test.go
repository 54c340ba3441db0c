package cli

import (
	"strings"
	"testing"
)

// A copy of a production database is stilled as a whole, and asks first where somebody sits there.
func TestPauseAll(t *testing.T) {
	t.Parallel()
	f := fail(t, 1)
	f.exec(`SELECT sqlq.create_queue('a'), sqlq.create_queue('b')`)
	paused := func() string {
		return f.text(`SELECT coalesce(string_agg(name, ',' ORDER BY name), '') FROM sqlq.queue WHERE paused_at IS NOT NULL`)
	}
	pause := func(answer string, words string) (int, string) {
		code, out, said := command(t, answer, append([]string{"--database-url", f.url}, strings.Fields(words)...)...)
		return code, out + said
	}
	all := f.text(`SELECT string_agg(name, ',' ORDER BY name) FROM sqlq.queue`)
	if code, said := pause("", "queue pause --all --dry-run"); code != 0 || paused() != "" || !strings.Contains(said, "queue a would be paused") {
		t.Errorf("dry run: %d, %s, paused %s", code, said, paused())
	}
	if code, said := pause("n\n", "queue pause --all"); code != exitError || paused() != "" || !strings.Contains(said, "This will pause all of the") {
		t.Errorf("refused: %d, %s, paused %s", code, said, paused())
	}
	if code, said := pause("", "queue pause a --all"); code != exitUsage || paused() != "" {
		t.Errorf("names and all: %d, %s, paused %s", code, said, paused())
	}
	if code, said := pause("y\n", "queue pause --all --reason copy"); code != 0 || paused() != all {
		t.Errorf("%d, %s, paused %s, not %s", code, said, paused(), all)
	}
	if code, said := pause("n\n", "queue resume --all --yes"); code != 0 || paused() != "" {
		t.Errorf("resume: %d, %s, paused %s", code, said, paused())
	}
}
