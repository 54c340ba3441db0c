package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tiny sizes are enough to see that each system does what it is used for.
var tiny = sizes{Rounds: 2, Backlog: 300, Batch: 100, DrainFor: 20 * time.Second, SendFor: 20 * time.Second, SendMost: 100,
	Rate: 200, LatencyFor: 50 * time.Millisecond}

func newRig(t *testing.T) *rig {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	l, err := openRig(t.Context(), tiny, log, t.Logf, os.Getenv("SQLQ_PEERS_NPM") != "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Every system that is to be had here hands over each order once: those sent in batches, and those sent one by one from
// several goroutines.
func TestEveryOrderIsHandledOnce(t *testing.T) {
	l := newRig(t)
	present, missing := l.available(t.Context(), subjects())
	for _, m := range missing {
		if m.failed {
			t.Errorf("%s is here, but does not work: %s", m.Title, m.Why)
		}
	}
	for _, s := range present {
		t.Run(s.key, func(t *testing.T) {
			err := l.with(t.Context(), s, func(ctx context.Context, sys system, _ string) error { return handlesEachOnce(ctx, l, sys) })
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// handlesEachOnce sends orders in batches and one by one, and complains if the system does not hand over each once.
func handlesEachOnce(ctx context.Context, l *rig, sys system) error {
	first := l.ids(l.size.Backlog)
	for batch := range slices.Chunk(orders(first, l.size.Backlog), l.size.Batch) {
		if err := sys.sendMany(ctx, batch); err != nil {
			return err
		}
	}
	_, from, n, err := l.sendFrom16(ctx, sys)
	if err != nil {
		return err
	}
	if from != first+int64(l.size.Backlog) || n != l.size.SendMost+senders*warmSends {
		return fmt.Errorf("single sends: %d, from id %d", n, from-first)
	}
	in := newInbox(first, l.size.Backlog+n)
	if left, err := sys.left(ctx); err != nil || left != len(in.at) {
		return fmt.Errorf("before anybody receives %d of %d orders are left: %w", left, len(in.at), err)
	}
	if full, err := l.receive(ctx, sys, in, arrivesWithin); err != nil || !full {
		return fmt.Errorf("%d of %d orders were handled: %w", in.distinct.Load(), len(in.at), err)
	}
	return l.nothingLeft(ctx, sys)
}

// A run of a few systems gives all figures and ratios, in both forms.
func TestRun(t *testing.T) {
	l := newRig(t)
	chosen, err := choose(subjects(), []string{"river", "sqlq", "river_defaults"})
	if err != nil {
		t.Fatal(err)
	}
	values, failed, err := l.run(t.Context(), chosen)
	if err != nil || len(failed) > 0 {
		t.Fatal(failed, err)
	}
	r := newReport(tiny, chosen, []absent{{Key: "x", Title: "X", Why: "it is not there"}}, values)
	if r.Settings, err = l.settings(t.Context()); err != nil || len(r.Settings) != len(shown) {
		t.Errorf("settings: %v, %v", r.Settings, err)
	}
	var out bytes.Buffer
	if err := r.write(&out, "json"); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Systems map[string]map[string]any
		Ratios  map[string]float64
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, what := range allRows {
		for _, key := range []string{"sqlq", "river"} {
			if x, _ := got.Systems[key][string(what)].(float64); !(x > 0) {
				t.Errorf("systems.%s.%s is %v", key, what, got.Systems[key][string(what)])
			}
		}
	}
	for _, q := range ratios {
		if x := got.Ratios[q.key]; !(x > 0) {
			t.Errorf("ratios.%s is %v", q.key, x)
		}
	}
	if n := len(r.Systems["sqlq"].Rounds[rowDrain]); n != tiny.Rounds {
		t.Errorf("%d values for %d rounds", n, tiny.Rounds)
	}
	text := r.markdown()
	for _, want := range []string{"**sqlq**", "River, defaults", "fsync = on", "Targets", "X: it is not there"} {
		if !strings.Contains(text, want) {
			t.Errorf("the Markdown lacks %q", want)
		}
	}
}

// A run that is interrupted ends soon, and leaves nothing.
func TestInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupt := errors.New("interrupted")
	say := func(format string, args ...any) {
		t.Logf(format, args...)
		time.AfterFunc(500*time.Millisecond, func() { cancel(interrupt) })
	}
	o := options{size: defaultSizes, only: []string{"sqlq"}}
	if _, err := compare(ctx, o, slog.New(slog.DiscardHandler), say); !errors.Is(err, interrupt) && !errors.Is(err, context.Canceled) {
		t.Errorf("the run ended with %v", err)
	}
	left, err := os.ReadDir(os.TempDir())
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), "sqlq-") {
			t.Errorf("left behind: %s", entry.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
}

func TestOrder(t *testing.T) {
	for _, id := range []int64{firstID, 10*firstID - 1} {
		if body := encode(newOrder(id)); len(body) != bodySize {
			t.Errorf("order %d has %d bytes, not %d: %s", id, len(body), bodySize, body)
		}
	}
}

func TestInbox(t *testing.T) {
	in := newInbox(10, 3)
	at := time.Unix(100, 0)
	in.handled(11, at)
	in.handled(10, at.Add(2*time.Second))
	if n, d := in.span(); n != 2 || d != 2*time.Second {
		t.Errorf("after two: %d in %v", n, d)
	}
	if full, err := in.wait(t.Context(), 0); full || err != nil {
		t.Errorf("after two: full %v, %v", full, err)
	}
	in.handled(12, at)
	if full, err := in.wait(t.Context(), time.Minute); !full || err != nil {
		t.Errorf("after all: full %v, %v", full, err)
	}
	if err := in.check(); err != nil {
		t.Error(err)
	}
	in.handled(12, at)
	in.handled(9, at)
	in.handled(13, at)
	if err := in.check(); err == nil || in.again.Load() != 1 || in.strangers.Load() != 2 {
		t.Errorf("one again and two strangers: %v", err)
	}
}

func TestFigures(t *testing.T) {
	for x, want := range map[float64]string{0: "0", 0.04267: "0.0427", 1.3: "1.3", 99.94: "99.9", 100: "100", 1234.6: "1,235", 1234567: "1,234,567"} {
		if got := thousands(x); got != want {
			t.Errorf("%v is written %s, want %s", x, got, want)
		}
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-o", "xml"}, {"-only", "kafka"}, {"-rounds", "-1"}, {"-n", "5"}, {"again"}} {
		var told bytes.Buffer
		if code := run(t.Context(), args, &told, &told); code != 2 || told.Len() == 0 {
			t.Errorf("%q: exit code %d, says %q", args, code, &told)
		}
	}
}

// What a guarded program writes and starts is gone when it has been stopped.
func TestGuard(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	const script = `sleep 1000 & echo $! >"$0/child.new"; mv "$0/child.new" "$0/child"; wait`
	p, err := guarded(folder, filepath.Join(dir, "log"), os.Environ(), "/bin/sh", "-c", script, folder)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	for child == 0 {
		select {
		case <-p.ended:
			t.Fatal("it ended by itself", p.said())
		case <-t.Context().Done():
			t.Fatal("it did not start", p.said())
		case <-time.After(time.Millisecond):
		}
		text, _ := os.ReadFile(filepath.Join(folder, "child"))
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if state, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(child), "stat")); err == nil && !strings.Contains(string(state), ") Z ") {
		t.Errorf("what it started still runs: %s", state)
	}
}
