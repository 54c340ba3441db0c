package devpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A folder contains everything that one server writes:
//
//	lock                  held by everything that uses the folder
//	data/                 the data directory
//	log                   what initdb and the server print
//	.s.PGSQL.5432         the socket
//
// The lock alone decides whether a folder is in use. The process that made the folder holds it, and on Unix it is
// handed down, open, to the guard and the server and all the server's own processes, so that it is free exactly when the
// last of them has gone. Process ids are never looked at: they are reused.
//
// If root has made the folder for another user, that user could put links into it. So files in it are opened through
// root, which follows no link to the outside.
type folder struct {
	path string
	root *os.Root
	lock *os.File
	as   account
	env  []string // additional environment of the PostgreSQL programs that work on it
}

// folderPrefix is the prefix of every folder's name, and of nothing else in the temporary directory.
const folderPrefix = "sqlq-pg-"

// newFolder creates a folder below root that belongs to the account, is locked, and that no other user may enter.
func newFolder(root string, as account) (*folder, error) {
	for {
		path, err := os.MkdirTemp(root, folderPrefix)
		if err != nil {
			return nil, fmt.Errorf("create a folder for the server: %w", err)
		}
		f := &folder{path: path, as: as}
		lock, err := tryLock(filepath.Join(path, "lock"))
		if err == nil && !sameFile(lock, filepath.Join(path, "lock")) {
			lock.Close()
			err = errLocked
		}
		if errors.Is(err, errLocked) {
			continue // a sweep was faster than the lock, and removes the folder
		}
		if err == nil {
			f.lock = lock
			f.root, err = os.OpenRoot(path)
		}
		if err == nil {
			err = errors.Join(as.own(lock), as.ownIn(f.root, ".")) // in this order: from now on the account can enter
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create a folder for the server: %w", err), f.remove())
		}
		return f, nil
	}
}

func (f *folder) data() string { return filepath.Join(f.path, "data") }

// create creates an empty file in the folder, which belongs to the account.
func (f *folder) create(name string) (*os.File, error) {
	file, err := f.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.as.own(file); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// write creates a file in the folder, or appends to one.
func (f *folder) write(name, text string) error {
	file, err := f.root.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		file, err = f.create(name)
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// postmaster returns the process id of the running server.
func (f *folder) postmaster() (int, error) {
	text, err := f.root.ReadFile("data/postmaster.pid")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}

// logTail returns the end of the server's log, to be appended to an error; empty if there is none.
func (f *folder) logTail() string {
	text, err := f.root.ReadFile("log")
	if err != nil {
		return ""
	}
	return quoteLog(string(text))
}

// quoteLog returns the end of a log, to be appended to an error; empty if there is none.
func quoteLog(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if lines[0] == "" {
		return ""
	}
	const most = 20
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return "\nThe server's log ends with:\n  " + strings.Join(lines, "\n  ")
}

// removeWithin is how long remove waits for the last process to leave the folder. When a postmaster of version 14 is
// killed, its autovacuum launcher can wait 10 seconds for the statistics collector before it notices.
const removeWithin = 30 * time.Second

// remove removes the folder once the last process of the server has left it. (A killed postmaster leaves other processes
// behind, which end, and stop writing, a little later.)
func (f *folder) remove() error {
	if f.lock != nil {
		f.lock.Close()
	}
	if f.root != nil {
		f.root.Close()
	}
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	late := time.NewTimer(removeWithin)
	defer late.Stop()
	for {
		err := removeUnused(f.path)
		if err == nil {
			return nil
		}
		select {
		case <-late.C:
			return fmt.Errorf("remove the server's folder %s: %w", f.path, err)
		case <-again.C:
		}
	}
}

// removeUnused removes a folder that no process uses; errLocked if one does.
//
// The lock goes last, so that an interrupted removal leaves a folder that the next sweep still recognises.
func removeUnused(path string) error {
	lockPath := filepath.Join(path, "lock")
	switch info, err := os.Lstat(lockPath); {
	case errors.Is(err, fs.ErrNotExist):
		return ignoreMissing(os.Remove(path)) // refuses unless empty
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a lock file", lockPath)
	}
	lock, err := tryLock(lockPath)
	if err != nil {
		return ignoreMissing(err)
	}
	defer lock.Close()
	entries, err := os.ReadDir(path)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return removeLocked(path, lock)
}

// sweep removes the folders below root whose processes have all gone without removing them: after kill -9 of everything,
// or a crash of the machine. It removes only what is certainly this package's: the name, the owner and a free lock
// must be right. A folder that cannot be removed stays; that does not prevent a start.
func sweep(root string, as account) {
	paths, _ := filepath.Glob(filepath.Join(root, folderPrefix+"*")) // the pattern is well-formed
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || !as.owns(info) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(path, "lock")); err != nil && time.Since(info.ModTime()) < time.Hour {
			continue // it is just being created
		}
		_ = removeUnused(path)
	}
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sameFile reports whether the path still leads to the open file.
func sameFile(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(open, there)
}
