package devpg

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cacheRoot returns the folder for what outlives a server: fetched packages and seeds. It is "" if there is none.
//
// The user that the server runs as cannot reach root's own cache, and under sudo HOME can be the caller's, whose
// folders must not fill with root's files. So root has one in /var/cache, unless XDG_CACHE_HOME says otherwise.
func cacheRoot(as account) string {
	if as.isOther() {
		if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
			if ok, err := as.canUse(dir, false); ok && err == nil {
				return filepath.Join(dir, "sqlq")
			}
		}
		return "/var/cache/sqlq"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "sqlq")
}

// makeCache creates the cache's folder. Every user can enter root's, whatever the umask: the server runs as
// another user.
func makeCache(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil || os.Geteuid() != 0 {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// publish creates the folder at path: fill writes its content into a folder next to it, which is then renamed. So the
// folder is complete as soon as it exists. If another process publishes the same one first, that one stays.
func publish(path string, fill func(partial string) error) error {
	dir := filepath.Dir(path)
	if err := makeCache(dir); err != nil {
		return err
	}
	prune(dir)
	partial, err := os.MkdirTemp(dir, partialPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(partial) // nothing is left of it after the rename
	if err := fill(partial); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		if _, there := os.Stat(path); there == nil {
			return nil
		}
		return err
	}
	return nil
}

const partialPrefix = ".partial-"

// prune removes from the cache what killed processes have left there, and seeds that were not used for a month. This is only
// housekeeping: what cannot be removed stays.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.IsDir() {
			continue
		}
		unused := time.Since(info.ModTime())
		if strings.HasPrefix(e.Name(), partialPrefix) && unused > time.Hour ||
			strings.HasPrefix(e.Name(), seedPrefix) && unused > 30*24*time.Hour {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
