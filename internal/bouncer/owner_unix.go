//go:build unix

package bouncer

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// ownerOf returns the user who owns a socket's folder; the user nobody if there is no folder or it is root's.
func ownerOf(host string) string {
	if info, err := os.Stat(host); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 {
			if u, err := user.LookupId(strconv.Itoa(int(stat.Uid))); err == nil {
				return u.Username
			}
		}
	}
	return "nobody"
}
