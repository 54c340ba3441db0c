package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/sqlq/sqlq/internal/term"
	"github.com/sqlq/sqlq/sqlq/ops"
)

// shown is the screen without its colours.
func shown(m tea.Model) string { return ansi.Strip(m.View().Content) }

// pressed is the model after some keys; what they would read is left out.
func pressed(m tea.Model, keys ...string) tea.Model {
	for _, key := range keys {
		k := tea.Key{Text: key, Code: []rune(key)[0]}
		switch key {
		case "enter":
			k = tea.Key{Code: tea.KeyEnter}
		case "tab":
			k = tea.Key{Code: tea.KeyTab}
		case "esc":
			k = tea.Key{Code: tea.KeyEscape}
		case "down":
			k = tea.Key{Code: tea.KeyDown}
		case "space":
			k = tea.Key{Code: tea.KeySpace, Text: " "}
		}
		m, _ = m.Update(tea.KeyPressMsg(k))
	}
	return m
}

// fixed is a model with two readings, ten seconds apart.
func fixed(width, height int) tea.Model {
	at := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	n := func(n int64) *int64 { return &n }
	oldest := 5 * time.Minute
	read := func(after time.Duration, arrived, ready int64) sampledMsg {
		return sampledMsg{read: snapshot{
			at: at.Add(after),
			queues: []topQueue{
				{Queue: ops.Queue{Name: "billing", Ready: ops.Count{N: 1_234_567, Estimated: true}, Failed: ops.Count{N: 3}}, arrived: n(2_000_000 + arrived), paused: true},
				{Queue: ops.Queue{Name: "sales", Ready: ops.Count{N: ready}, Delayed: ops.Count{N: 2}, OldestAge: &oldest}, arrived: n(arrived)},
			},
			groups: []topGroup{{group: "5f2ab81c", queue: "billing", message: "card refused\nby the bank", count: ops.Count{N: 3}, last: at.Add(-time.Hour)},
				{group: "0a1b2c3d", queue: "sales", message: "timeout", count: ops.Count{N: 40}, last: at.Add(-2 * time.Hour)}},
			instances: []topInstance{{endpoint: "sales", host: "shop-1", version: "v1.2.0", state: "running", seen: 2 * time.Second, concurrency: 8, inHand: 3, rate: 12.5},
				{endpoint: "billing", host: "shop-2", version: "v1.1.9", state: "crashed", seen: time.Hour, concurrency: 4}},
		}}
	}
	var m tea.Model = newTopModel(context.Background(), topSource{}, 2*time.Second)
	m, _ = m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	m, _ = m.Update(read(0, 100, 40))
	m, _ = m.Update(read(10*time.Second, 600, 60))
	return m
}

func TestTopView(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("testdata/top/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, c := range []struct {
		name          string
		width, height int
		keys          []string
	}{
		{"first", 80, 24, nil},
		{"wide", 130, 30, nil},
		{"small", 50, 8, []string{"tab"}},
		{"sorted", 80, 24, []string{"s", "S", "down"}},
		{"filtered", 80, 24, []string{"tab", "/", "T", "i", "m", "enter"}},
		{"nothing fits", 80, 24, []string{"/", "x", "y"}},
		{"help", 80, 24, []string{"?"}},
		{"frozen", 80, 24, []string{"space"}},
		{"queue", 80, 12, []string{"enter"}},
	} {
		file := filepath.Join("testdata", "top", c.name+".txt")
		known[file] = true
		got := shown(pressed(fixed(c.width, c.height), c.keys...))
		lines := strings.Split(got, "\n")
		if len(lines) != c.height {
			t.Errorf("%s: %d lines, want %d", c.name, len(lines), c.height)
		}
		for i, line := range lines {
			if term.Width(line) > c.width {
				t.Errorf("%s: line %d is too wide: %q", c.name, i, line)
			}
			lines[i] = strings.TrimRight(line, " ")
		}
		got = strings.Join(lines, "\n") + "\n"
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, want)
		}
	}
	for _, file := range pages {
		if !known[file] {
			t.Errorf("%s belongs to no case", file)
		}
	}
}

// Every key that is named works in every place and size: nothing panics, and the screen keeps its size.
func TestTopKeys(t *testing.T) {
	t.Parallel()
	keys := []string{"down", "up", "k", "j", "g", "G", "s", "S", "tab", "enter", "esc", "/", "a", "esc", "?", "a", "r", "space", "enter", "enter", "tab", "s", "G", "/", "x", "enter", "esc"}
	for _, size := range [][2]int{{80, 24}, {200, 60}, {20, 5}, {3, 2}, {1, 1}} {
		m := fixed(size[0], size[1])
		for i := range 3 * len(keys) {
			m = pressed(m, keys[i*7%len(keys)])
			if got := strings.Count(shown(m), "\n") + 1; got > max(2, size[1]) {
				t.Fatalf("%v: %d lines", size, got)
			}
		}
	}
}

func TestTopReadings(t *testing.T) {
	t.Parallel()
	m := fixed(80, 24)
	m, cmd := m.Update(sampledMsg{err: errors.New("the server is \x1b[2Jgone")})
	if got := shown(m); cmd == nil || !strings.Contains(got, `trying again: the server is \u001b[2Jgone`) || !strings.Contains(got, "› billing") {
		t.Errorf("after an error:\n%s", got)
	}
	stale, cmd := m.Update(tickMsg{turn: 1})
	if cmd != nil {
		t.Errorf("an old tick reads: %v", stale)
	}
	m, cmd = m.Update(tickMsg{turn: m.(topModel).turn})
	if cmd == nil || !m.(topModel).reading {
		t.Error("a tick does not read")
	}
	if _, cmd = m.Update(tickMsg{turn: m.(topModel).turn}); cmd != nil {
		t.Error("a tick reads while a reading is under way")
	}
	// What a page read comes late: the page is closed, and nothing happens.
	m, _ = m.Update(pageMsg{page: page{kind: queuePage, name: "sales"}})
	if len(m.(topModel).pages) != 0 {
		t.Error("a page opened by itself")
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	read := func(after time.Duration, arrived int64, ready ops.Count) *snapshot {
		return &snapshot{at: at.Add(after), queues: []topQueue{{Queue: ops.Queue{Name: "q", Ready: ready}, arrived: &arrived}}}
	}
	kept := 7.0
	for name, c := range map[string]struct {
		before, now *snapshot
		in, out     string
	}{
		"first":       {nil, read(0, 5, ops.Count{N: 5}), "-", "-"},
		"some":        {read(0, 100, ops.Count{N: 50}), read(10*time.Second, 300, ops.Count{N: 100}), "20", "15"},
		"drained":     {read(0, 100, ops.Count{N: 50}), read(10*time.Second, 100, ops.Count{N: 0}), "0", "5.0"},
		"estimate":    {read(0, 100, ops.Count{N: 50_000, Estimated: true}), read(time.Second, 110, ops.Count{N: 1}), "10", "-"},
		"made anew":   {read(0, 100, ops.Count{}), read(time.Second, 3, ops.Count{N: 3}), "-", "-"},
		"at one time": {read(0, 100, ops.Count{}), read(0, 103, ops.Count{N: 3}), "-", "-"},
		"the database's": {nil, &snapshot{at: at, queues: []topQueue{{Queue: ops.Queue{Name: "q"}, in: &kept, out: &kept}}},
			"7.0", "7.0"},
	} {
		r := ratesAfter(nil, c.before, c.now)["q"]
		if in, out := topRate(r.lastIn()), topRate(r.lastOut()); in != c.in || out != c.out {
			t.Errorf("%s: got %s in and %s out, want %s and %s", name, in, out, c.in, c.out)
		}
	}
	if got := sparkline([]float64{0, 1, math.NaN(), 4, 8}, 6); got != " ▁▂·▅█" {
		t.Errorf("got %q", got)
	}
	if got := sparkline([]float64{9, 0, 0}, 2); got != "▁▁" {
		t.Errorf("got %q", got)
	}
	sum := total(map[string]rates{"a": {in: []float64{1, 2, 3}}, "b": {in: []float64{math.NaN(), 5}}}, func(r rates) []float64 { return r.in })
	if fmt.Sprint(sum) != "[1 2 8]" {
		t.Errorf("got %v", sum)
	}
}
