package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/sqlq/sqlq/internal/devpg"
)

// A small run loses nothing, is really interrupted, and reports it.
func TestSmallRun(t *testing.T) {
	t.Parallel()
	server, err := devpg.TestOptions()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-waiting", "1000", "-failed", "24000", "-runs", "1", "-filters", "-o", "json"}, server, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if len(r.Looks) < 5 || r.Server == "" {
		t.Errorf("it looked at %+v on %q", r.Looks, r.Server)
	}
	for _, l := range r.Looks {
		if l.Rows == 0 {
			t.Errorf("%s found nothing", l.Name)
		}
	}
	if p := r.Replay; p.Messages != 12_000 || p.Replayed != 12_000 || p.InterruptedAt < 6000 || p.InterruptedAt >= 12_000 || p.Lost != 0 || p.Doubled != 0 {
		t.Errorf("replay: %+v", p)
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-o", "xml"}, {"-failed", "7"}, {"-runs", "0"}, {"-waiting", "-1"}, {"-replay", "300000"}, {"-colour"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, devpg.Options{}, &out, &errs); code != 2 || errs.Len() == 0 || out.Len() != 0 {
			t.Errorf("%v: exit code %d: %s%s", args, code, &out, &errs)
		}
	}
}
