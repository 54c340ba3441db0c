package session

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// limitUnacknowledged makes a connection fail when data that it sent is not acknowledged for that long.
func limitUnacknowledged(c *net.TCPConn, d time.Duration) error {
	const tcpUserTimeout = 18 // of Linux's tcp.h; package syscall lacks it
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
	})
	return errors.Join(err, set)
}
