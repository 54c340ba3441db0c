package main

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	const passed = `{"Action":"run","Package":"github.com/sqlq/sqlq/x","Test":"TestA"}
{"Action":"output","Package":"github.com/sqlq/sqlq/x","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"github.com/sqlq/sqlq/x","Test":"TestA","Elapsed":1.6}
{"Action":"output","Package":"github.com/sqlq/sqlq/x","Output":"PASS\n"}
{"Action":"output","Package":"github.com/sqlq/sqlq/x","Output":"ok  \tgithub.com/sqlq/sqlq/x\t0.1s\n"}
{"Action":"pass","Package":"github.com/sqlq/sqlq/x"}
`
	const skipped = `{"Action":"output","Package":"github.com/sqlq/sqlq/y/z","Test":"TestB/sub","Output":"    because\n"}
{"Action":"skip","Package":"github.com/sqlq/sqlq/y/z","Test":"TestB/sub"}
`
	for _, c := range []struct {
		name, events string
		skips        string
		well         bool
		says         []string
		silent       []string
	}{
		{name: "passed", events: passed, well: true, says: []string{"ok  \tgithub.com/sqlq/sqlq/x\t0.1s\n", "1 tests passed, 0 failed, 0 were skipped; the longest: x.TestA 2 s\n"}, silent: []string{"chatter", "PASS"}},
		{name: "failed", events: passed + `{"Action":"output","Package":"p","Test":"TestF","Output":"--- FAIL: TestF\n"}
{"Action":"fail","Package":"p","Test":"TestF"}
{"Action":"fail","Package":"p"}`, says: []string{"--- FAIL: TestF\n", "1 tests passed, 1 failed"}, silent: []string{"chatter"}},
		{name: "died", events: passed + `{"Action":"run","Package":"p","Test":"TestD"}
{"Action":"output","Package":"p","Test":"TestD","Output":"panic: no\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}`, says: []string{"panic: no\n", "FAIL\tp"}},
		{name: "does not build", events: passed + `{"ImportPath":"p","Action":"build-output","Output":"x.go:1:1: no\n"}
{"ImportPath":"p","Action":"build-fail"}`, says: []string{"x.go:1:1: no\n"}},
		{name: "skipped", events: passed + skipped, says: []string{"because", "not on the list", "y/z.TestB/sub"}},
		{name: "skipped as allowed", events: passed + skipped, skips: "# why\n\ny/z.TestB/sub  needs a printer\n", well: true, says: []string{"y/z.TestB/sub"}, silent: []string{"because", "why"}},
		{name: "another skip allowed", events: passed + skipped, skips: "y/z.TestB  needs a printer\n", says: []string{"not on the list"}},
		{name: "no test files", events: passed + `{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p"}`, well: true, says: []string{"[no test files]"}},
		{name: "nothing ran", events: `{"Action":"pass","Package":"p"}`, says: []string{"no test ran"}},
		{name: "only skips", events: skipped, skips: "y/z.TestB/sub x", says: []string{"no test ran"}},
		{name: "not JSON", events: passed + "go: cannot find main module\n", well: true, says: []string{"cannot find main module"}},
		{name: "nothing at all", says: []string{"no test ran"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			allowed, err := readSkips(c.skips)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			if well := report(strings.NewReader(c.events), &out, allowed); well != c.well {
				t.Errorf("well: %v, want %v", well, c.well)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("does not say %q:\n%s", text, &out)
				}
			}
			for _, text := range c.silent {
				if strings.Contains(out.String(), text) {
					t.Errorf("says %q:\n%s", text, &out)
				}
			}
		})
	}
}

func TestReadSkips(t *testing.T) {
	t.Parallel()
	allowed, err := readSkips("# a comment\n\nx.TestA  not on this platform\n x.TestB\twhy\n")
	if got := slices.Sorted(maps.Keys(allowed)); err != nil || !slices.Equal(got, []string{"x.TestA", "x.TestB"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := readSkips("x.TestA\n"); err == nil {
		t.Error("a skip without a reason is accepted")
	}
}
