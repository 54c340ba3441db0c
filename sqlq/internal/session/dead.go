package session

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// How long the library's own connections wait for a machine that has vanished, because it crashed without closing its
// connections or was cut off from the network; that may well be why another has taken over. pgx's default is five
// minutes, and the operating system retransmits unacknowledged data for a quarter of an hour. These limits are about what
// the other machine's kernel acknowledges, so a server that is only slow, or frozen, is not given up.
const (
	keepAliveIdle     = 5 * time.Second // then every keepAliveInterval, keepAliveCount times
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	unacknowledged    = 10 * time.Second // if the system supports it: see limitUnacknowledged
)

// noticeDeath makes connections fail when their server's machine vanishes. The program's DialFunc may return anything;
// only plain TCP connections are changed.
func noticeDeath(config *pgx.ConnConfig) {
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if tcp, is := c.(*net.TCPConn); is && err == nil {
			// On an error the connection is left as it was.
			_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount})
			_ = limitUnacknowledged(tcp, unacknowledged)
		}
		return c, err
	}
}
