package session

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// What the system is asked for can be tested; that it does so, when a machine vanishes, cannot without root. (It was tried:
// when the address of a server was taken away, messages were handled again after 11 s, and before in minutes.)
func TestNoticeDeath(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	config, err := pgx.ParseConfig("postgres://" + l.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	dialled := 0
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled++
		return dial(ctx, network, address)
	}
	noticeDeath(config)
	c, err := config.DialFunc(t.Context(), "tcp", l.Addr().String())
	if err != nil || dialled != 1 {
		t.Fatalf("the caller's DialFunc was called %d times, %v", dialled, err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]struct {
		level, option, want int
	}{
		"SO_KEEPALIVE":     {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(keepAliveIdle / time.Second)},
		"TCP_KEEPINTVL":    {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(keepAliveInterval / time.Second)},
		"TCP_KEEPCNT":      {syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveCount},
		"TCP_USER_TIMEOUT": {syscall.IPPROTO_TCP, 18, int(unacknowledged / time.Millisecond)},
	} {
		err := raw.Control(func(fd uintptr) {
			if got, err := syscall.GetsockoptInt(int(fd), o.level, o.option); err != nil || got != o.want {
				t.Errorf("%s is %d, %v, want %d", name, got, err, o.want)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return nil, net.ErrClosed }
	noticeDeath(config)
	if _, err := config.DialFunc(t.Context(), "tcp", ""); err != net.ErrClosed {
		t.Errorf("a dial that fails: %v", err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	config.DialFunc = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	noticeDeath(config)
	if got, err := config.DialFunc(t.Context(), "tcp", ""); got != ours || err != nil {
		t.Errorf("a connection that is not TCP: %v, %v", got, err)
	}
}
