package trial

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"
)

// proxy forwards connections to the server's socket, and can be told to do it badly. What it swallows never arrives, where the
// connection is cut in the end; where it is let go all of it arrives late, as through a network that only waits.
type proxy struct {
	listener net.Listener
	network  string // of the server
	address  string
	loops    sync.WaitGroup

	mu    sync.Mutex
	conns map[*proxied]bool
	delay time.Duration // of each piece, both ways
}

// proxied is one connection through the proxy.
type proxied struct {
	proxy          *proxy
	client, server net.Conn
	ended          chan struct{}
	end            sync.Once

	mu       sync.Mutex
	hole     chan struct{} // not nil: nothing gets through until it is closed
	trap     trap
	released func()
}

// trap is what a connection waits for, to become a black hole at that moment.
type trap int

const (
	noTrap    trap = iota
	onCommit       // the answer to a COMMIT, or to a statement that committed by itself: done, and nobody told
	onRequest      // the next request, which does not arrive
)

func newProxy(network, address string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &proxy{listener: l, network: network, address: address, conns: map[*proxied]bool{}}
	p.loops.Go(p.accept)
	return p, nil
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept() {
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
		c := &proxied{proxy: p, client: client, server: server, ended: make(chan struct{})}
		p.mu.Lock()
		p.conns[c] = true
		p.mu.Unlock()
		p.loops.Go(func() { c.forward(client, server, false) })
		p.loops.Go(func() { c.forward(server, client, true) })
	}
}

func (p *proxy) close() {
	p.listener.Close()
	for _, c := range p.all() {
		c.cut()
	}
	p.loops.Wait()
}

func (p *proxy) all() (all []*proxied) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		all = append(all, c)
	}
	return all
}

// slow delays every piece for a while.
func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	p.delay = d
	p.mu.Unlock()
}

func (p *proxy) delayed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// forward copies one direction, piece by piece, until either end closes.
func (c *proxied) forward(from, to net.Conn, answers bool) {
	defer c.cut()
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

// committed are the ends of answers that say that something was committed: the tag of COMMIT, and ReadyForQuery outside of
// a transaction, which ends the answer to any statement there.
var committed = [][]byte{[]byte("COMMIT\x00"), []byte("Z\x00\x00\x00\x05I")}

// pass waits while the connection is a black hole; false when it was cut. A trap is sprung here.
func (c *proxied) pass(piece []byte, answer bool) bool {
	c.mu.Lock()
	sprung := c.trap == onRequest && !answer
	for _, end := range committed {
		sprung = sprung || c.trap == onCommit && answer && bytes.Contains(piece, end)
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

// swallow makes the connection a black hole; it lasts until letGo or cut.
func (c *proxied) swallow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hole == nil {
		c.hole = make(chan struct{})
	}
}

// set makes a trap; sprung is called when the connection falls into it.
func (c *proxied) set(t trap, sprung func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trap, c.released = t, sprung
}

// letGo ends a black hole, and a trap; what was withheld arrives late.
func (c *proxied) letGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trap = noTrap
	if c.hole != nil {
		close(c.hole)
		c.hole = nil
	}
}

// cut ends the connection at once on both sides, as a reset does.
func (c *proxied) cut() {
	c.end.Do(func() {
		close(c.ended)
		reset(c.client)
		reset(c.server)
		c.proxy.mu.Lock()
		delete(c.proxy.conns, c)
		c.proxy.mu.Unlock()
	})
}

func reset(c net.Conn) {
	if tcp, is := c.(*net.TCPConn); is {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
