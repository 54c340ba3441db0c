package cli

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sqlq/sqlq/sqlq/ops"
)

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0:                "0s",
		59 * time.Second: "59s",
		61 * time.Second: "1m",
		time.Hour:        "1h",
		47 * time.Hour:   "47h",
		50 * time.Hour:   "2d",
	} {
		if got := age(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
	e := &env{streams: streams{outTerminal: true}}
	if got := e.when(time.Now().Add(-3 * time.Minute)); got != "3m ago" {
		t.Errorf("past: got %q", got)
	}
	if got := e.when(time.Now().Add(3*time.Minute + time.Second)); got != "in 3m" {
		t.Errorf("future: got %q", got)
	}
	if got := e.whenInFull(time.Now().Add(-time.Hour)); !strings.HasSuffix(got, "Z (1h ago)") {
		t.Errorf("in full: got %q", got)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]ops.Count{
		"10000": {N: 10_000},
		"~0":    {N: 0, Estimated: true},
		"~9999": {N: 9999, Estimated: true},
		"~10k":  {N: 10_001, Estimated: true},
		"~1.2M": {N: 1_234_567, Estimated: true},
		"~12M":  {N: 12_345_678, Estimated: true},
	} {
		if got := count(c); got != want {
			t.Errorf("%+v: got %s, want %s", c, got, want)
		}
	}
}

// full is an output that takes nothing, as a full disk does.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A script must learn that what it wanted written was not.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"help", "queue", "ls"}, {"queue"}, {"version"}, {"--version"}, {"version", "-o", "yaml"}, {"completion", "bash"}, {"man"},
		{"migrate", "sql"}, {"migrate", "sql", "-o", "json"}, {"config", "show"}, {"config", "show", "-o", "jsonl"}} {
		var said bytes.Buffer
		code := run(t.Context(), args, streams{in: strings.NewReader(""), out: full{}, err: &said})
		if code != exitError || !strings.Contains(said.String(), "no space left") {
			t.Errorf("sqlq %s: exit code %d, %s", strings.Join(args, " "), code, said.String())
		}
	}
}
