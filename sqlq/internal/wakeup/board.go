package wakeup

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/store"
)

// board is what the Listener's goroutine and others tell each other: the state towards senders that each endpoint wants and the one it
// has, which channels to notify, and whether the session can be relied on. mu guards all of it. A Bell's Rung is called
// with mu held, so the endpoint's own mutex is taken after mu, never before.
type board struct {
	mu        sync.Mutex
	bells     []*Bell            // those that there are now; replaced, not changed
	revised   bool               // bells have come or gone: the session is to follow
	leaving   []chan struct{}    // closed when the session holds nothing more for bells that have gone
	connected bool               // connected, and LISTEN was seen to work
	round     int                // the number of the current round; 0: none, it waits
	rounds    int                // the number of the last round
	late      bool               // the current round takes so long that endpoints must not rely on it
	wakes     []string           // channels to notify
	interrupt context.CancelFunc // ends the wait
	poked     bool               // there is something to do
	byChannel map[string]*Bell
	tables    map[*Bell]store.TableID // those that the session has looked for; 0: there is none
	posts     map[*Bell]*post         // only the listener's goroutine adds and removes them
	delayed   string                  // channel of the delayed messages
	lead      string                  // channel on which a process says that it no longer leads
	queues    string                  // channel of the registry: queues created, paused or resumed
	changed   bool                    // queues were created, paused or resumed: compare with ours
	stale     bool                    // start over with a new session
}

// Rest says how an endpoint sleeps.
type Rest int

const (
	Deaf     Rest = iota // it does not sleep, or cannot be woken: only polling helps
	Watching             // senders notify it
	OnCall               // another process is notified, and calls this one when it has more than it can handle
)

// wish is the state towards senders that an endpoint wants.
type wish int

const (
	awake  wish = iota // it looks by itself, and keeps the watch if it has it
	asleep             // it takes the watch if that is free, and otherwise is on call
	away               // it leaves the watch to others
)

// post is an endpoint's state towards its queue's senders: what it wants, and what the session holds for it. The
// listener's mutex guards it; only the listener's goroutine changes what the session holds.
type post struct {
	bell   *Bell
	wish   wish
	asking chan struct{} // closed when the wish to sleep is granted or withdrawn; nil: no wish is pending

	watch bool            // the session holds the watch, and listens on the queue's channel
	flag  bool            // the session also holds the sleeper's lock
	noted map[string]bool // transactions that were writing when it fell asleep

	refusals int       // how many times in a row the sleeper's lock was refused
	refused  time.Time // the first of these times
	again    time.Time // when to try again

	call   bool // the others must be called
	called time.Time
}

func (p *post) wishFor(w wish) {
	p.wish = w
	p.answer()
}

// answer releases an endpoint that waits for its wish to sleep, whether it was granted or not.
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
		return Deaf // the sleeper's lock was refused, so senders cannot see that it sleeps
	}
	return OnCall
}

// refuse notes that the sleeper's lock was refused. Usually a sender has it, for microseconds.
func (p *post) refuse(now time.Time) {
	if p.refusals == 0 {
		p.refused = now
	}
	p.refusals++
	p.again = now.Add(min(time.Millisecond<<min(p.refusals, 10), time.Second))
}

// poke ends the current wait, or else the next one as soon as it begins.
func (b *board) poke() {
	b.poked = true
	if b.interrupt != nil {
		b.interrupt()
	}
}

// Hears reports whether the listener is connected, so that it hears notifications.
func (b *board) Hears() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connected && !b.late
}

// registryChanged makes the listener compare the registry.
func (b *board) registryChanged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = true
	b.poke()
}

// Refresh makes the listener start over, because tables or instance numbers have changed.
func (b *board) Refresh() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stale = true
	b.poke()
}

// Notify arranges for channels to be notified soon, on the listener's connection; false if that cannot be relied on.
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

// howRests returns how the endpoint sleeps; a late listener wakes no endpoint. The caller holds mu.
func (b *board) howRests(bell *Bell) Rest {
	if b.late {
		return Deaf
	}
	return b.posts[bell].rests()
}

// isRefused reports whether the endpoint wants to sleep and cannot, because others have the sleeper's lock.
func (b *board) isRefused(bell *Bell) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.posts[bell]
	return p != nil && p.wish == asleep && p.watch && p.refusals > 0
}

// keepsWatch reports whether the session keeps the watch over the queue of a channel.
func (b *board) keepsWatch(channel string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	bell := b.byChannel[channel]
	return bell != nil && b.posts[bell] != nil && b.posts[bell].watch
}

// rouse lets the endpoint poll by itself for a while, which saves senders the wake-ups. It keeps the watch, so that no other process takes it.
func (b *board) rouse(bell *Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.posts[bell]; p != nil {
		p.wishFor(awake)
		b.poke()
	}
}

// leave leaves the watch to others without calling them, because the endpoint's queue is paused.
func (b *board) leave(bell *Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.posts[bell]; p != nil && p.wish != away {
		p.wishFor(away)
		b.poke()
	}
}

// overflow notes that the queue may contain more than the endpoint can handle: it leaves the watch to others, and calls
// them.
func (b *board) overflow(bell *Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.posts[bell]
	if p == nil {
		return
	}
	if p.wish == asleep {
		defer bell.Ring(Called) // it must not go on sleeping as if it could still be woken
	}
	p.wishFor(away)
	p.call = true
	b.poke()
}

// which returns the endpoints whose posts satisfy the condition, always in the same order.
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

// each calls do for each bell and its post.
func (b *board) each(do func(bell *Bell, p *post)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for bell, p := range b.posts {
		do(bell, p)
	}
}

// noteChanged makes the next round compare the registry with what is known of it.
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

// add takes in bells that have come.
func (b *board) add(bells []*Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bells = slices.Concat(b.bells, bells)
	b.revised = true
	b.poke()
}

// remove lets bells go, and returns a channel that is closed when the session holds nothing more for them.
func (b *board) remove(bells []*Bell) (left chan struct{}) {
	left = make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	has := func(bell *Bell) bool { return slices.Contains(bells, bell) }
	b.bells = slices.DeleteFunc(slices.Clone(b.bells), has)
	maps.DeleteFunc(b.byChannel, func(_ string, bell *Bell) bool { return has(bell) })
	if b.posts == nil { // there is no session that could hold something
		close(left)
		return left
	}
	for _, bell := range bells {
		if p := b.posts[bell]; p != nil {
			p.wishFor(away)
		}
	}
	b.leaving = append(b.leaving, left)
	b.revised = true
	b.poke()
	return left
}

// revision returns the bells that have come and gone since the session last followed them, and whom to tell when it has.
func (b *board) revision() (come, gone []*Bell, left []chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.revised {
		return nil, nil, nil
	}
	b.revised = false
	for bell := range b.tables {
		if !slices.Contains(b.bells, bell) {
			gone = append(gone, bell)
		}
	}
	for _, bell := range b.bells {
		if _, known := b.tables[bell]; !known {
			come = append(come, bell)
		}
	}
	left, b.leaving = b.leaving, nil
	return come, gone, left
}

// heldFor returns the tables of bells for which the session listens, for which it holds the sleeper's lock, and the watch.
func (b *board) heldFor(bells []*Bell) (heard, asleep, watched []store.TableID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bell := range bells {
		p, table := b.posts[bell], b.tables[bell]
		if p == nil {
			continue
		}
		heard = append(heard, table)
		if p.flag {
			asleep = append(asleep, table)
		}
		if p.watch {
			watched = append(watched, table)
		}
	}
	return heard, asleep, watched
}

// enrol notes the tables of bells for which the session listens now; 0 is that of a queue that was dropped, which receivers log.
func (b *board) enrol(bells []*Bell, tables []store.TableID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, bell := range bells {
		table := tables[i]
		if b.tables[bell] = table; table == 0 {
			continue
		}
		b.posts[bell] = &post{bell: bell}
		b.byChannel[table.Channel()], b.byChannel[table.CallChannel()] = bell, bell
	}
}

// strike forgets bells that have gone.
func (b *board) strike(bells []*Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	has := func(bell *Bell) bool { return slices.Contains(bells, bell) }
	maps.DeleteFunc(b.byChannel, func(_ string, bell *Bell) bool { return has(bell) })
	for _, bell := range bells {
		delete(b.posts, bell)
		delete(b.tables, bell)
	}
}

// all returns the bells that there are now.
func (b *board) all() []*Bell {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bells
}

// enrolled returns those that the session knows.
func (b *board) enrolled() (bells []*Bell) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bell := range b.bells {
		if _, known := b.tables[bell]; known {
			bells = append(bells, bell)
		}
	}
	return bells
}
