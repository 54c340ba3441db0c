//go:build unix

package devpg

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The first start makes the seed, later ones use it, and a damaged one is not used.
func TestSeed(t *testing.T) {
	cache := filepath.Join(quickDir(t), "cache")
	root := tempDir(t)
	o := options(t)
	as, err := serverAccount(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	inst, err := newFinder(o, as, cacheRoot(as)).find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// run starts and stops a server, and reports whether initdb was needed.
	run := func() bool {
		t.Helper()
		f, err := newFolder(root, as)
		if err != nil {
			t.Fatal(err)
		}
		s, err := launch(t.Context(), o, inst, f, as, cache)
		if err != nil {
			t.Fatal(err)
		}
		if got := query(t, s.URL(""), "SELECT 'here'"); got != "here" {
			t.Errorf("got %s", got)
		}
		log, err := f.root.ReadFile("log")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(log, []byte("The files belonging to this database system will be owned by user"))
	}
	seeds := func() []string {
		found, err := filepath.Glob(filepath.Join(cache, seedPrefix+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}

	if !run() || len(seeds()) != 1 {
		t.Fatalf("the first start ran no initdb, or left no seed: %v", seeds())
	}
	seed := seeds()[0]
	month := time.Now().Add(-40 * 24 * time.Hour)
	if err := os.Chtimes(seed, month, month); err != nil {
		t.Fatal(err)
	}
	if run() {
		t.Error("the second start did not use the seed")
	}
	prune(cache) // it is in use again, so it stays
	if len(seeds()) != 1 {
		t.Error("a seed in use was pruned")
	}
	if err := os.Truncate(filepath.Join(seed, "data", "global", "pg_control"), 0); err != nil {
		t.Fatal(err)
	}
	if !run() {
		t.Error("a damaged seed was used")
	}
	if err := os.RemoveAll(cache); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cache, nil, 0o600); err != nil { // no cache can be created there
		t.Fatal(err)
	}
	if !run() {
		t.Error("there is a data directory, but who made it?")
	}
	checkEmpty(t, root)
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	ages := map[string]time.Duration{
		partialPrefix + "new": time.Minute, partialPrefix + "old": 2 * time.Hour,
		seedPrefix + "new": 29 * 24 * time.Hour, seedPrefix + "old": 31 * 24 * time.Hour,
		packagePrefix + "old": 999 * 24 * time.Hour,
	}
	for name, age := range ages {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(path, "in"), 0o700); err != nil {
			t.Fatal(err)
		}
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	prune(dir)
	for name := range ages {
		_, err := os.Stat(filepath.Join(dir, name))
		if removed := err != nil; removed != (name == partialPrefix+"old" || name == seedPrefix+"old") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
