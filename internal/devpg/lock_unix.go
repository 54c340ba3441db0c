//go:build unix

package devpg

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// errLocked is returned by tryLock while another process, or another open file of this one, holds the lock.
var errLocked = errors.New("in use by a running process")

// tryLock opens the file, creating it if necessary, and locks it against every other open file. The lock is free once
// the file, and each copy of it that a child process inherited, is closed.
func tryLock(path string) (*os.File, error) {
	// Do not follow links, and do not wait for the other end of a pipe: the temporary directory is shared.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// removeLocked removes a folder that contains nothing but its lock.
func removeLocked(path string, lock *os.File) error {
	if err := os.Remove(lock.Name()); err != nil {
		return err
	}
	return os.Remove(path)
}
