package devpg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

type entry struct {
	name, body string
	mode       int64
	kind       byte   // default: a file
	link       string // of a link
}

// pack creates an npm archive.
func pack(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	out := tar.NewWriter(zip)
	for _, e := range entries {
		if e.mode == 0 {
			e.mode = 0o600
		}
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), Typeflag: e.kind, Linkname: e.link}
		if err := out.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	err := unpack(bytes.NewReader(pack(t,
		entry{name: "package/package.json", body: "{}"},
		entry{name: "package/native/", kind: tar.TypeDir},
		entry{name: "package/native/bin/postgres", body: "program", mode: 0o700},
		entry{name: "package/native/lib/libpq.so.5.18", body: "library"},
		entry{name: "package/native/lib/libpq.so.4", body: "already there"},
		entry{name: "package/native/lib/in-tar", kind: tar.TypeSymlink, link: "../bin/postgres"},
		entry{name: "package/" + linkList, body: `[
			{"source": "native/lib/libpq.so.5.18", "target": "native/lib/libpq.so.5"},
			{"source": "native/lib/libpq.so.5.18", "target": "native/lib/libpq.so.4"},
			{"source": "native/lib/libpq.so.5", "target": "native/more/libpq.so"}]`},
	)), dir)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"package.json":                "{}",
		"native/bin/postgres":         "program",
		"native/lib/in-tar":           "program",
		"native/lib/libpq.so.5":       "library",
		"native/lib/libpq.so.4":       "already there",
		"native/more/libpq.so":        "library",
		"native/lib/libpq.so.5.18":    "library",
		"native/lib/../more/libpq.so": "library",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", path, got, err, want)
		}
	}
	if runtime.GOOS == "windows" {
		return // Windows has no such modes
	}
	for path, want := range map[string]os.FileMode{
		".": 0o755, "native/bin": 0o755, "native/bin/postgres": 0o755, "native/lib/libpq.so.5.18": 0o644,
	} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "native/lib/libpq.so.5")); err != nil || to != "libpq.so.5.18" {
		t.Errorf("the link leads to %s, %v", to, err)
	}
}

func TestUnpackRefuses(t *testing.T) {
	list := func(text string) entry { return entry{name: "package/" + linkList, body: text} }
	for name, c := range map[string]struct {
		entries []entry
		want    string
	}{
		"..":                {[]entry{{name: "package/../../evil"}}, "leads out"},
		".. within":         {[]entry{{name: "package/a/../evil"}}, "leads out"},
		"absolute":          {[]entry{{name: "/package/evil"}}, "leads out"},
		"backslashes":       {[]entry{{name: `package/..\..\evil`}}, "leads out"},
		"link to above":     {[]entry{{name: "package/evil", kind: tar.TypeSymlink, link: "../evil"}}, "leads out"},
		"absolute link":     {[]entry{{name: "package/evil", kind: tar.TypeSymlink, link: "/etc"}}, "leads out"},
		"dangling link":     {[]entry{{name: "package/evil", kind: tar.TypeSymlink, link: "nothing"}}, "leads to nothing"},
		"hard link":         {[]entry{{name: "package/evil", kind: tar.TypeLink, link: "/etc/passwd"}}, "is neither"},
		"device":            {[]entry{{name: "package/evil", kind: tar.TypeChar}}, "is neither"},
		"the same twice":    {[]entry{{name: "package/a"}, {name: "package/a"}}, "exists"},
		"list with ..":      {[]entry{list(`[{"source": "../evil", "target": "native/a"}]`)}, "leads out"},
		"list to ..":        {[]entry{list(`[{"source": "native/a", "target": "../evil"}]`)}, "leads out"},
		"list is absolute":  {[]entry{list(`[{"source": "/etc/passwd", "target": "native/a"}]`)}, "leads out"},
		"list to nothing":   {[]entry{list(`[{"source": "native/b", "target": "native/a"}]`)}, "leads to nothing"},
		"list is no list":   {[]entry{list(`{}`)}, linkList},
		"file through link": {[]entry{{name: "package/l", kind: tar.TypeSymlink, link: "f"}, {name: "package/l", body: "x"}}, "exists"},
		// Each of these looks harmless by itself: only together do they lead outside.
		"links that lead out together": {[]entry{
			{name: "package/p/q/up", kind: tar.TypeSymlink, link: "../.."},
			{name: "package/evil", kind: tar.TypeSymlink, link: "p/q/up/../evil"},
		}, "leads to nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			if err := os.WriteFile(filepath.Join(outer, "evil"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(outer, "in")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			err := unpack(bytes.NewReader(pack(t, c.entries...)), dir)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if entries, err := os.ReadDir(outer); err != nil || len(entries) != 2 {
				t.Errorf("written outside: %v, %v", entries, err)
			}
		})
	}
	if err := unpack(strings.NewReader("no archive"), t.TempDir()); err == nil {
		t.Error("no archive, no error")
	}
}
