package lab

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Proxy forwards connections to a server, and can be told to do it badly. What it swallows never arrives if the connection is
// cut afterwards; if the connection is let go, everything arrives late, as over a slow network.
type Proxy struct {
	listener net.Listener
	network  string // of the server
	address  string
	loops    sync.WaitGroup

	mu    sync.Mutex
	conns map[*Link]bool
	delay time.Duration // of each piece, both ways
}

// Link is one connection through a Proxy.
type Link struct {
	proxy          *Proxy
	client, server net.Conn
	ended          chan struct{}
	end            sync.Once

	mu       sync.Mutex
	hole     chan struct{} // if not nil, nothing gets through until it is closed
	trap     Trap
	released func()
}

// Trap is an event at which a connection becomes a black hole.
type Trap int

const (
	noTrap    Trap = iota
	OnCommit       // the answer to a COMMIT, or to a statement that committed by itself: it is done, but the client does not learn of it
	OnRequest      // the next request, which does not arrive
)

// NewProxy starts a proxy on a free port of 127.0.0.1, in front of the server that a URL leads to.
func NewProxy(of string) (*Proxy, error) {
	server, err := pgconn.ParseConfig(of)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{listener: l, conns: map[*Link]bool{}}
	p.network, p.address = pgconn.NetworkAddress(server.Host, server.Port)
	p.loops.Go(p.accept)
	return p, nil
}

// URL returns a URL of the server, changed to lead through the proxy.
func (p *Proxy) URL(of string) (string, error) {
	u, err := url.Parse(of)
	if err != nil {
		return "", err
	}
	query := u.Query()
	query.Set("host", "127.0.0.1")
	query.Set("port", strconv.Itoa(p.listener.Addr().(*net.TCPAddr).Port))
	u.RawQuery = query.Encode()
	return u.String(), nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.address)
		if err != nil { // as if the server itself refused
			reset(client)
			continue
		}
		c := &Link{proxy: p, client: client, server: server, ended: make(chan struct{})}
		p.mu.Lock()
		p.conns[c] = true
		p.mu.Unlock()
		p.loops.Go(func() { c.forward(client, server, false) })
		p.loops.Go(func() { c.forward(server, client, true) })
	}
}

// Close cuts all connections, and returns when all forwarding has ended.
func (p *Proxy) Close() {
	p.listener.Close()
	for _, c := range p.Links() {
		c.Cut()
	}
	p.loops.Wait()
}

// Links returns the current connections.
func (p *Proxy) Links() (all []*Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// Slow delays each piece that is forwarded, in both directions, from now on.
func (p *Proxy) Slow(d time.Duration) {
	p.mu.Lock()
	p.delay = d
	p.mu.Unlock()
}

func (p *Proxy) delayed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// forward copies one direction, piece by piece, until either end closes.
func (c *Link) forward(from, to net.Conn, answers bool) {
	defer c.Cut()
	piece := make([]byte, 16<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if d := c.proxy.delayed(); d > 0 {
				time.Sleep(d)
			}
			if !c.pass(piece[:n], answers) {
				return
			}
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// committed are the endings of answers that report a commit: the tag of COMMIT, and ReadyForQuery outside of
// a transaction, which ends the answer to any statement there.
var committed = [][]byte{[]byte("COMMIT\x00"), []byte("Z\x00\x00\x00\x05I")}

// pass waits while the connection is a black hole; false means that it was cut. Traps are sprung here.
func (c *Link) pass(piece []byte, answer bool) bool {
	c.mu.Lock()
	sprung := c.trap == OnRequest && !answer
	for _, end := range committed {
		sprung = sprung || c.trap == OnCommit && answer && bytes.Contains(piece, end)
	}
	if sprung {
		c.trap = noTrap
		c.hole = make(chan struct{})
		c.released()
	}
	hole := c.hole
	c.mu.Unlock()
	if hole == nil {
		return true
	}
	select {
	case <-hole:
		return true
	case <-c.ended:
		return false
	}
}

// Swallow makes the connection a black hole until LetGo or Cut is called.
func (c *Link) Swallow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hole == nil {
		c.hole = make(chan struct{})
	}
}

// Set sets a trap; sprung is called when the connection falls into it.
func (c *Link) Set(t Trap, sprung func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trap, c.released = t, sprung
}

// LetGo ends a black hole and disarms a trap; what was withheld arrives late.
func (c *Link) LetGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trap = noTrap
	if c.hole != nil {
		close(c.hole)
		c.hole = nil
	}
}

// Ended returns a channel that is closed when the connection has ended.
func (c *Link) Ended() <-chan struct{} { return c.ended }

// Cut ends the connection at once on both sides, like a reset.
func (c *Link) Cut() {
	c.end.Do(func() {
		c.proxy.mu.Lock()
		delete(c.proxy.conns, c)
		c.proxy.mu.Unlock()
		close(c.ended)
		reset(c.client)
		reset(c.server)
	})
}

func reset(c net.Conn) {
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
