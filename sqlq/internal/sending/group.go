package sending

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/sqlq/sqlq/sqlq/internal/session"
)

// Limits of a group commit, and for how many idle routes groups are kept.
const (
	maxCommits    = 2 // in flight; the second one only while the first is slow
	slowCommit    = 10 * time.Millisecond
	maxGroup      = 1_000
	maxGroupBytes = 16 << 20
	commitTime    = 5 * time.Minute
	maxIdleGroups = 1_000
)

// group lets concurrent sends along one route share a transaction (group commit). While a commit is in flight, further sends gather;
// the next commit takes all of them. No send waits for others to arrive: if no commit is in flight it commits at once, alone. Each
// route has its own group, so that a locked table blocks only its own queue's commands, and the events to which its queue is
// subscribed.
//
// Only one commit is in flight at a time, because a statement costs the server and the driver far more than a message in it: two at
// a time would each be half the size, and do twice the work. Only when a commit is slow, for example on a hanging connection,
// a second one may start, so that a single slow commit does not block the rest.
type group struct {
	sender   *Sender
	mu       sync.Mutex
	waiting  []*request
	inFlight *commit // the one in flight; nil: none, or only slow ones
	slow     int     // how many more have been in flight for longer than slowCommit
	watched  bool    // a timer is set that checks whether the one in flight is slow
	gone     bool    // forgotten while idle: there may be another group for the route by now
}

// route is what messages that share commits have in common: the queue of commands, or the type of events, whose copies go
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

// commit is a commit in flight.
type commit struct {
	began time.Time
}

// request is one send that waits for, or is in, a commit.
type request struct {
	Envelope
	result chan error // receives the result, once
}

// groups are the groups of all routes that were used recently. Routes may come and go, for example queues
// created for one conversation each, so idle ones are forgotten when there are many.
type groups struct {
	byRoute sync.Map // route → *group; read without a lock by every send

	mu     sync.Mutex
	n      int // in byRoute
	forget int // the number of groups at which idle ones are forgotten
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
		gs.forget = 2 * gs.n // those left are busy; do not scan them again for each new route
	}
	g, there := gs.byRoute.LoadOrStore(r, &group{sender: s})
	if !there {
		gs.n++
	}
	return g
}

// forgetIdle forgets groups in which nothing waits and nothing commits. The caller holds gs.mu.
func (gs *groups) forgetIdle() {
	gs.byRoute.Range(func(r, found any) bool {
		g := found.(*group)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.waiting) == 0 && g.inFlight == nil && g.slow == 0 {
			g.gone = true
			gs.byRoute.Delete(r)
			gs.n--
		}
		return true
	})
}

// Send stores one message, in a transaction shared with whatever else is being sent at the moment, and returns the
// message's own result. If ctx ends before a commit has taken the message, it is not sent; later the outcome is unknown.
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

// isFree reports whether a commit may begin now. The caller holds g.mu.
func (g *group) isFree() bool { return g.inFlight == nil && g.slow < maxCommits }

// begin begins a commit. The caller holds g.mu.
func (g *group) begin() *commit {
	g.inFlight = &commit{began: time.Now()}
	g.watch(slowCommit)
	return g.inFlight
}

// watch checks after a while whether the commit in flight has become slow, and if so lets another begin. One timer serves
// many commits: setting one for each would cost as much as a message. The caller holds g.mu.
func (g *group) watch(after time.Duration) {
	if g.watched {
		return
	}
	g.watched = true
	time.AfterFunc(after, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.watched = false
		if g.inFlight == nil {
			return
		}
		if left := slowCommit - time.Since(g.inFlight.began); left > 0 {
			g.watch(left)
			return
		}
		g.inFlight = nil
		g.slow++
		g.beginNext()
	})
}

// end ends a commit and lets the next begin. The caller holds g.mu.
func (g *group) end(this *commit) {
	if g.inFlight == this {
		g.inFlight = nil
	} else {
		g.slow--
	}
	g.beginNext()
}

// beginNext begins a commit of the requests that have waited the longest, if one may begin. The caller holds g.mu.
func (g *group) beginNext() {
	if len(g.waiting) > 0 && g.isFree() {
		go g.run(g.begin(), g.next())
	}
}

// next removes and returns the requests that have waited the longest. The caller holds g.mu.
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

// run commits, and continues with the requests that have gathered meanwhile, until there are none or another commit has begun.
func (g *group) run(this *commit, requests []*request) {
	for {
		g.sender.commitAll(requests)
		g.letJoin()
		g.mu.Lock()
		if len(g.waiting) == 0 || g.inFlight != this {
			g.end(this)
			g.mu.Unlock()
			return
		}
		requests = g.next()
		this = g.begin()
		g.mu.Unlock()
	}
}

// letJoin lets goroutines that are ready to run go first, as long as that brings new requests. The senders that the last
// commit has just released may send again at once; otherwise the next commit would begin almost empty, without them.
// It does not wait for goroutines that are not about to run.
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

// commitAll stores messages together. If the server refuses that, each is tried by itself, so that one sender's mistake
// does not fail the others. After a lost connection the outcome is unknown, and each sender gets that error.
func (s *Sender) commitAll(requests []*request) {
	// No sender's context may cancel the send of others, and a hanging network must not block the next commit for ever.
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

// storeOne stores one message by itself. If a subscriber's queue is dropped at that moment, the publisher gets no error.
func (s *Sender) storeOne(ctx context.Context, e Envelope) error {
	const patience = 5 // subscribers that disappear one after another
	err := s.SendAll(ctx, []Envelope{e})
	for i := 0; i < patience && e.Queue == "" && session.State(err) == session.UndefinedTable; i++ {
		err = s.SendAll(ctx, []Envelope{e})
	}
	return err
}

// Gathered returns how many senders to a queue wait for the commit in flight. It is for tests.
func (s *Sender) Gathered(queue string) int {
	g := s.groups.along(route{queue: queue}, s)
	defer g.mu.Unlock()
	return len(g.waiting)
}

// RoutesKept returns how many routes have a group. It is for tests.
func (s *Sender) RoutesKept() (n int) {
	s.groups.byRoute.Range(func(any, any) bool { n++; return true })
	return n
}
