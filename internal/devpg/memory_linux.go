package devpg

import "syscall"

// memoryRoot returns the directory of a file system in memory with room for a server, or "".
func memoryRoot() string {
	const (
		dir   = "/dev/shm"
		tmpfs = 0x01021994
		room  = 2 << 30 // a container's usual 64 MB are not enough
	)
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) != nil || int64(fs.Type) != tmpfs || fs.Bavail*uint64(fs.Bsize) < room {
		return ""
	}
	return dir
}
