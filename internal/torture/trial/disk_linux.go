package trial

import (
	"fmt"
	"os"
	"syscall"
)

// mountSmall mounts a file system in memory, of so many bytes, on a folder.
func mountSmall(folder string, bytes int) error {
	return syscall.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
}

func unmount(folder string) error { return syscall.Unmount(folder, syscall.MNT_DETACH) }

// chownLike gives a folder to the owner of another.
func chownLike(folder, other string) error {
	info, err := os.Stat(other)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Chown(folder, int(owner.Uid), int(owner.Gid))
}
