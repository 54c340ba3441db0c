//go:build !linux

package session

import (
	"net"
	"time"
)

// limitUnacknowledged is for Linux only. Elsewhere a statement ends after the time that the library allows it.
func limitUnacknowledged(*net.TCPConn, time.Duration) error { return nil }
