package session

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// How long the library's own connections wait for a machine that has vanished: one that crashes without closing its
// connections, or is cut off from the network, which may well be why another has taken over for it. pgx's own choice is five
// minutes, and what was sent and is not acknowledged the operating system repeats for a quarter of an hour. These count what
// the other machine's kernel acknowledges, so that a server which is only slow, or frozen, is not given up.
const (
	keepAliveIdle     = 5 * time.Second // then every keepAliveInterval, keepAliveCount times
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	unacknowledged    = 10 * time.Second // where the system can: see limitUnacknowledged
)

// noticeDeath has connections fail when their server's machine vanishes. What the caller's DialFunc returns may be anything;
// only plain TCP connections are touched.
func noticeDeath(config *pgx.ConnConfig) {
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if tcp, is := c.(*net.TCPConn); is && err == nil {
			// Errors: then it is as it was.
			_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount})
			_ = limitUnacknowledged(tcp, unacknowledged)
		}
		return c, err
	}
}
