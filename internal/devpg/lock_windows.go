package devpg

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// errLocked is returned by tryLock while another process, or another open file of this one, holds the lock.
var errLocked = errors.New("in use by a running process")

// tryLock opens the file, creating it if necessary, and locks it against every other open file. The lock is free once
// the file is closed, or the process has gone.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	const how = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	if err := windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, new(windows.Overlapped)); err != nil {
		f.Close()
		if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			err = errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// removeLocked removes a folder that contains nothing but its lock, which must be closed first: Windows does not remove open
// files.
func removeLocked(path string, lock *os.File) error {
	lock.Close()
	if err := os.Remove(lock.Name()); err != nil {
		return err
	}
	return os.Remove(path)
}
