package wakeup

import (
	"context"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// board is what the Listener's goroutine and others tell each other: how the endpoints wish to stand towards senders and how they
// do, what is to be notified, and whether the session can be relied on. mu guards all of it but bells; a Bell's Rung is called
// with mu held, so the endpoint's own mutex is taken after it, never before it.
type board struct {
	bells     []*Bell // set once
	mu        sync.Mutex
	connected bool               // and LISTEN was seen to work
	round     int                // the number of the round under way; 0: none, it waits
	rounds    int                // the number of the last round
	late      bool               // the round under way takes so long that nobody may rely on it
	wakes     []string           // channels to be notified
	interrupt context.CancelFunc // of the wait
	poked     bool               // there is something to do
	byChannel map[string]*Bell
	tables    map[*Bell]store.TableID
	posts     map[*Bell]*post
	delayed   string // channel of the delayed messages
	lead      string // channel of the processes that lead no more
	queues    string // channel of the registry: new, paused and resumed queues
	changed   bool   // queues were made, paused or resumed: see what that is to ours
	stale     bool   // begin anew
}

// Rest is how an endpoint sleeps.
type Rest int

const (
	Deaf     Rest = iota // it does not, or nobody can wake it: only polling helps
	Watching             // senders notify it
	OnCall               // another process is notified, and calls it when it has more than it can do
)

// wish is how an endpoint wants to stand towards senders.
type wish int

const (
	awake  wish = iota // looks by itself, and keeps the watch if it has it
	asleep             // keeps the watch if it is free, else is on call
	away               // leaves the watch to others
)

// post is how an endpoint stands towards its queue's senders: what it wishes, and what the session holds for it. The
// listener's mutex guards it; only the listener's goroutine changes what the session holds.
type post struct {
	bell   *Bell
	wish   wish
	asking chan struct{} // closed when the wish to sleep is granted or withdrawn; nil: it has been

	watch bool            // the session holds the watch, and listens on the queue's channel
	flag  bool            // and the sleeper's lock
	noted map[string]bool // transactions that were writing when it fell asleep

	refusals int       // how often in a row the sleeper's lock was refused
	refused  time.Time // when first
	again    time.Time // when to try next

	call   bool // others are to be called
	called time.Time
}

func (p *post) wishFor(w wish) {
	p.wish = w
	p.answer()
}

// answer lets the endpoint that waits for its wish to sleep go on, granted or not.
func (p *post) answer() {
	if p.asking != nil {
		close(p.asking)
		p.asking = nil
	}
}

// rests returns how the endpoint sleeps.
func (p *post) rests() Rest {
	switch {
	case p == nil || p.wish != asleep || p.asking != nil:
		return Deaf
	case p.flag:
		return Watching
	case p.watch:
		return Deaf // the sleeper's lock was refused, so senders do not see that it sleeps
	}
	return OnCall
}

// refuse notes that the sleeper's lock was refused. Mostly a sender has it, for microseconds.
func (p *post) refuse(now time.Time) {
	if p.refusals == 0 {
		p.refused = now
	}
	p.refusals++
	p.again = now.Add(min(time.Millisecond<<min(p.refusals, 10), time.Second))
}

// poke ends the wait, or keeps the next from beginning.
func (b *board) poke() {
	b.poked = true
	if b.interrupt != nil {
		b.interrupt()
	}
}

// Hears reports whether the listener is connected, so that others can tell it something.
func (b *board) Hears() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connected && !b.late
}

// registryChanged has the listener compare.
func (b *board) registryChanged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = true
	b.poke()
}

// Refresh has the listener begin anew: other tables, or other instance numbers.
func (b *board) Refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stale = true
	b.poke()
}

// Notify has channels notified soon, on the listener's connection; false where that cannot be relied on.
func (b *board) Notify(channels []string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.connected || b.late {
		return false
	}
	b.wakes = append(b.wakes, channels...)
	b.poke()
	return true
}

func (b *board) rests(bell *Bell) Rest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.howRests(bell)
}

// howRests is rests for those who hold mu. While the listener is late it wakes nobody.
func (b *board) howRests(bell *Bell) Rest {
	if b.late {
		return Deaf
	}
	return b.posts[bell].rests()
}

// isRefused reports whether the endpoint would sleep and cannot, because others have the sleeper's lock.
func (b *board) isRefused(bell *Bell) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.posts[bell]
	return p != nil && p.wish == asleep && p.watch && p.refusals > 0
}

// keepsWatch reports whether the session keeps the watch over the queue that a channel is for.
func (b *board) keepsWatch(channel string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bell := b.byChannel[channel]
	return bell != nil && b.posts[bell] != nil && b.posts[bell].watch
}

// rouse spares the senders: the endpoint looks by itself for a while, and keeps the watch, so that nobody else does.
func (b *board) rouse(bell *Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.posts[bell]; p != nil {
		p.wishFor(awake)
		b.poke()
	}
}

// leave leaves the watch to others, without calling them: the endpoint's queue is paused.
func (b *board) leave(bell *Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.posts[bell]; p != nil && p.wish != away {
		p.wishFor(away)
		b.poke()
	}
}

// overflow says that there may be more in the queue than the endpoint can do: it leaves the watch to others, and calls
// them.
func (b *board) overflow(bell *Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.posts[bell]
	if p == nil {
		return
	}
	if p.wish == asleep {
		defer bell.Ring(Called) // it must not go on sleeping as if others would wake it
	}
	p.wishFor(away)
	p.call = true
	b.poke()
}

// which returns the endpoints whose posts are as asked for, always in the same order.
func (b *board) which(is func(*post) bool) (bells []*Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bell := range b.bells {
		if p := b.posts[bell]; p != nil && is(p) {
			bells = append(bells, bell)
		}
	}
	return bells
}

// hold changes posts.
func (b *board) hold(bells []*Bell, change func(*post)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bell := range bells {
		change(b.posts[bell])
	}
}

// tablesOf returns the tables of the queues.
func (b *board) tablesOf(bells []*Bell) []store.TableID {
	b.mu.Lock()
	defer b.mu.Unlock()
	var tables []store.TableID
	for _, bell := range bells {
		tables = append(tables, b.tables[bell])
	}
	return tables
}

// each calls do with each bell and its post.
func (b *board) each(do func(bell *Bell, p *post)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for bell, p := range b.posts {
		do(bell, p)
	}
}

// noteChanged has the next round compare the registry with what is known of it.
func (b *board) noteChanged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = true
}

// hear sets the channel of the delayed messages, for a process that only polls.
func (b *board) hear(delayed string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delayed = delayed
}
