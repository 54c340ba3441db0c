//go:build unix

package devpg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A sweep removes the folders that dead processes have left, and nothing else.
func TestSweep(t *testing.T) {
	root := t.TempDir()
	put := func(path string, mode os.FileMode) string {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		return filepath.Dir(path)
	}
	old := time.Now().Add(-2 * time.Hour)
	age := func(path string) {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	mkdir := func(name string) string {
		path := filepath.Join(root, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}

	put(folderPrefix+"dead/data/base/1/1259", 0o600)
	dead := put(folderPrefix+"dead/lock", 0o600)
	emptyOld := mkdir(folderPrefix + "empty-old")
	age(emptyOld)

	live, err := newFolder(root, account{})
	if err != nil {
		t.Fatal(err)
	}
	emptyNew := mkdir(folderPrefix + "empty-new")
	noLock := put(folderPrefix+"no-lock/precious", 0o600)
	age(noLock)
	otherName := put("sqlq-other/lock", 0o600)
	file := filepath.Join(root, folderPrefix+"file")
	put(folderPrefix+"file", 0o600)
	link := filepath.Join(root, folderPrefix+"link")
	if err := os.Symlink(otherName, link); err != nil {
		t.Fatal(err)
	}
	pipe := mkdir(folderPrefix + "pipe")
	if err := syscall.Mkfifo(filepath.Join(pipe, "lock"), 0o600); err != nil {
		t.Fatal(err)
	}

	sweep(root, account{})
	for _, path := range []string{dead, emptyOld} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was not swept: %v", path, err)
		}
	}
	for _, path := range []string{
		live.path, emptyNew, filepath.Join(noLock, "precious"), filepath.Join(otherName, "lock"), file, link, pipe,
	} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the sweep removed what was not its own: %v", err)
		}
	}
	if err := live.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(live.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was not removed: %v", err)
	}
}

// A temporary directory with a long name, as on macOS, is skipped if the path of a socket would not fit.
func TestFolderRootIsShort(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	if err := os.Mkdir(long, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	if root, err := folderRoot(account{}, false); err != nil || root != "/tmp" {
		t.Errorf("got %s, %v", root, err)
	}
	t.Setenv("TMPDIR", filepath.Join(long, "missing"))
	if root, err := folderRoot(account{}, false); err != nil || root != "/tmp" {
		t.Errorf("got %s, %v", root, err)
	}
}
