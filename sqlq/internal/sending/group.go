package sending

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// Bounds of a group commit, and for how many idle routes groups are kept.
const (
	maxCommits    = 2 // at a time; the second only beside one that is slow
	slowCommit    = 10 * time.Millisecond
	maxGroup      = 1_000
	maxGroupBytes = 16 << 20
	commitTime    = 5 * time.Minute
	maxIdleGroups = 1_000
)

// group lets sends along one route that happen at the same time share a transaction. While one commits, further sends gather;
// the next commit takes all of them. No send waits for company: one that finds nothing under way commits at once, alone. Each
// route has its own group, so that a locked table holds up no other queue's commands, and no event that its queue is not
// subscribed to.
//
// There is one commit at a time, because a statement costs the server and the driver far more than a message in it does: two at
// a time halve each other's size and so do twice the work. Only when a commit is slow, on a connection that hangs for example,
// is there another beside it, so that one of them alone does not hold up the rest.
type group struct {
	sender   *Sender
	mu       sync.Mutex
	waiting  []*request
	underWay *commit // nil: none but slow ones
	slow     int     // how many besides have been under way for longer than slowCommit
	watched  bool    // a timer is set that looks whether the one under way is slow
	gone     bool    // forgotten while idle: there may be others for the route by now
}

// route is what messages have in common that share commits: the queue of commands, or the type of events, whose copies go
// to the same queues.
type route struct {
	queue, event string
}

func routeOf(e *Envelope) route {
	if e.Queue == "" {
		return route{event: e.Type}
	}
	return route{queue: e.Queue}
}

// commit is one under way.
type commit struct {
	began time.Time
}

// request is one send that waits for, or is in, a commit.
type request struct {
	Envelope
	result chan error // gets the result, once
}

// groups are the groups of every route that messages were sent along lately. Routes may come and go, such as queues
// that are made for one conversation each, so those that are idle are forgotten when there are many.
type groups struct {
	byRoute sync.Map // route → *group; read without a lock by every send

	mu     sync.Mutex
	n      int // in byRoute
	forget int // at how many the idle ones are forgotten
}

// along returns the group of a route, locked.
func (gs *groups) along(r route, s *Sender) *group {
	for {
		found, ok := gs.byRoute.Load(r)
		if !ok {
			found = gs.add(r, s)
		}
		g := found.(*group)
		g.mu.Lock()
		if !g.gone {
			return g
		}
		g.mu.Unlock()
	}
}

func (gs *groups) add(r route, s *Sender) any {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.n >= max(gs.forget, maxIdleGroups) {
		gs.forgetIdle()
		gs.forget = 2 * gs.n // those that are left are busy: not to be looked through for each new route
	}
	g, there := gs.byRoute.LoadOrStore(r, &group{sender: s})
	if !there {
		gs.n++
	}
	return g
}

// forgetIdle forgets groups in which nothing waits and nothing commits. Holds gs.mu.
func (gs *groups) forgetIdle() {
	gs.byRoute.Range(func(r, found any) bool {
		g := found.(*group)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.waiting) == 0 && g.underWay == nil && g.slow == 0 {
			g.gone = true
			gs.byRoute.Delete(r)
			gs.n--
		}
		return true
	})
}

// Send stores one message, in a transaction with whatever else is being sent at the moment, and returns the
// message's own result. When ctx ends before the message was taken along it is not sent; later the outcome is unknown.
func (s *Sender) Send(ctx context.Context, e Envelope) error {
	g := s.groups.along(routeOf(&e), s)
	if len(g.waiting) == 0 && g.isFree() {
		this := g.begin()
		g.mu.Unlock()
		err := s.storeOne(ctx, e)
		g.mu.Lock()
		g.end(this)
		g.mu.Unlock()
		return err
	}
	r := &request{Envelope: e, result: make(chan error, 1)}
	g.waiting = append(g.waiting, r)
	g.mu.Unlock()
	select {
	case err := <-r.result:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	if i := slices.Index(g.waiting, r); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		g.mu.Unlock()
		return ctx.Err()
	}
	g.mu.Unlock()
	select {
	case err := <-r.result:
		return err
	default:
		return ctx.Err()
	}
}

// isFree reports whether a commit may begin now. Holds g.mu.
func (g *group) isFree() bool { return g.underWay == nil && g.slow < maxCommits }

// begin begins a commit. Holds g.mu.
func (g *group) begin() *commit {
	g.underWay = &commit{began: time.Now()}
	g.watch(slowCommit)
	return g.underWay
}

// watch looks after a while whether the commit under way has become slow, and if so lets another begin. One timer serves
// many commits: to set one for each would cost as much as a message. Holds g.mu.
func (g *group) watch(after time.Duration) {
	if g.watched {
		return
	}
	g.watched = true
	time.AfterFunc(after, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.watched = false
		if g.underWay == nil {
			return
		}
		if left := slowCommit - time.Since(g.underWay.began); left > 0 {
			g.watch(left)
			return
		}
		g.underWay = nil
		g.slow++
		g.beginNext()
	})
}

// end ends a commit and lets the next begin. Holds g.mu.
func (g *group) end(this *commit) {
	if g.underWay == this {
		g.underWay = nil
	} else {
		g.slow--
	}
	g.beginNext()
}

// beginNext begins the commit of those that have waited the longest, if it may. Holds g.mu.
func (g *group) beginNext() {
	if len(g.waiting) > 0 && g.isFree() {
		go g.run(g.begin(), g.next())
	}
}

// next takes out those that have waited the longest. Holds g.mu.
func (g *group) next() []*request {
	n, size := 0, 0
	for n < len(g.waiting) && n < maxGroup && (n == 0 || size+len(g.waiting[n].Body) <= maxGroupBytes) {
		size += len(g.waiting[n].Body)
		n++
	}
	next := slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	return next
}

// run commits, and goes on with those that have gathered meanwhile, until none have or another commit has begun beside it.
func (g *group) run(this *commit, requests []*request) {
	for {
		g.sender.commitAll(requests)
		g.letJoin()
		g.mu.Lock()
		if len(g.waiting) == 0 || g.underWay != this {
			g.end(this)
			g.mu.Unlock()
			return
		}
		requests = g.next()
		this = g.begin()
		g.mu.Unlock()
	}
}

// letJoin lets goroutines that are ready to run go first, as long as that brings new requests: the senders that the last
// commit has just released may send again at once, and would otherwise find that the next one has begun almost empty.
// It waits for none that is not about to run.
func (g *group) letJoin() {
	const turns = 3
	for range turns {
		before := g.gathered()
		runtime.Gosched()
		if g.gathered() == before {
			return
		}
	}
}

func (g *group) gathered() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// commitAll stores messages together. When the server refuses that, each is tried by itself, so that one sender's mistake
// does not fail the others; after a lost connection the outcome is unknown, and each sender gets that error.
func (s *Sender) commitAll(requests []*request) {
	// No sender's context may end the others' send, and a network that hangs must not hold up the next commit for ever.
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	all := make([]Envelope, len(requests))
	for i, r := range requests {
		all[i] = r.Envelope
	}
	err := s.SendAll(ctx, all)
	if err == nil || session.Lost(err) {
		for _, r := range requests {
			r.result <- err
		}
		return
	}
	for _, r := range requests {
		r.result <- s.storeOne(ctx, r.Envelope)
	}
}

// storeOne stores one message by itself. A subscriber whose queue is dropped at that moment is nothing to the publisher.
func (s *Sender) storeOne(ctx context.Context, e Envelope) error {
	const patience = 5 // subscribers that go one after the other
	err := s.SendAll(ctx, []Envelope{e})
	for i := 0; i < patience && e.Queue == "" && session.State(err) == session.UndefinedTable; i++ {
		err = s.SendAll(ctx, []Envelope{e})
	}
	return err
}

// Gathered returns how many senders to a queue wait for the commit under way. It is for tests.
func (s *Sender) Gathered(queue string) int {
	g := s.groups.along(route{queue: queue}, s)
	defer g.mu.Unlock()
	return len(g.waiting)
}

// RoutesKept returns for how many routes groups are kept. It is for tests.
func (s *Sender) RoutesKept() (n int) {
	s.groups.byRoute.Range(func(any, any) bool { n++; return true })
	return n
}
