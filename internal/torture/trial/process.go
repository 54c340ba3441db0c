package trial

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlq/sqlq/internal/lab"
)

// patienceWithStop is how long a process may take from SIGTERM to its end: its drain timeout, what the library adds to
// that for handlers and receivers that do not end, and a machine that is busy with a trial.
const patienceWithStop = 30 * time.Second

// post is a place for a process: when one has ended, whatever the reason, the next is started.
type post struct {
	crew *crew
	role string
	name string
	via  *lab.Proxy // nil: directly
	rate int

	mu      sync.Mutex
	process *process // nil: between two
}

// process is a running child.
type process struct {
	*lab.Process[line]
	post   *post
	run    int
	frozen bool
	asked  bool // to end
}

// crew is all the posts.
type crew struct {
	trial   *trial
	posts   []*post
	runs    atomic.Int32
	closing chan struct{}
	loops   sync.WaitGroup
	stopped sync.Once

	mu   sync.Mutex
	gone map[string]bool // retired roles
}

func newCrew(t *trial) *crew {
	return &crew{trial: t, closing: make(chan struct{}), gone: map[string]bool{}}
}

// add fills a new post.
func (c *crew) add(role, name string, via *lab.Proxy, rate int) {
	p := &post{crew: c, role: role, name: name, via: via, rate: rate}
	c.posts = append(c.posts, p)
	c.loops.Go(p.fill)
}

// of returns the posts of the roles.
func (c *crew) of(roles ...string) (found []*post) {
	for _, p := range c.posts {
		if slices.Contains(roles, p.role) {
			found = append(found, p)
		}
	}
	return found
}

func (c *crew) closed() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// close ends what runs: asked to, and after a while made to. The posts stay empty.
func (c *crew) close() {
	c.stopped.Do(func() { close(c.closing) })
	for _, p := range c.posts {
		p.stop(false)
	}
	c.loops.Wait()
}

// retire has the processes of a role end, for good.
func (c *crew) retire(role string) {
	c.mu.Lock()
	c.gone[role] = true
	c.mu.Unlock()
	late := time.Now().Add(patienceWithStop + 10*time.Second)
	for some := true; some && time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		some = false
		for _, p := range c.of(role) {
			if p.occupant() != "" { // also one that was started a moment ago
				some = true
				p.stop(true)
			}
		}
	}
}

func (c *crew) retired(role string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone[role]
}

// fill keeps the post filled until the crew closes, or the role is retired.
func (p *post) fill() {
	for !p.crew.closed() {
		pr, err := p.start()
		if err != nil {
			p.crew.trial.problem("start %s: %v", p.name, err)
			return
		}
		select {
		case <-pr.Ended():
		case <-p.crew.closing:
			p.stop(false)
			<-pr.Ended()
		}
		p.mu.Lock()
		p.process = nil
		retired := p.crew.retired(p.role)
		p.mu.Unlock()
		if retired {
			return
		}
		select { // one that cannot start, because the database is away, tries again
		case <-time.After(150 * time.Millisecond):
		case <-p.crew.closing:
		}
	}
}

func (p *post) start() (*process, error) {
	t := p.crew.trial
	pr := &process{post: p, run: int(p.crew.runs.Add(1))}
	pr.Process = lab.NewProcess(lab.Command[line]{
		Cmd: t.options.Command(), Kind: kind,
		Spec: spec{Role: p.role, Name: pr.name(), URL: t.site.url(p.via), Run: pr.run, Seed: t.options.Seed,
			Trace: filepath.Join(t.dir, fmt.Sprintf("trace-%d", pr.run)), Rate: p.rate},
		Said:   pr.hear,
		Logged: func(text string) { t.keep(pr.name(), text) },
		Ended:  func(exit error) { t.faults.happened(pr.name(), "ended: %v", exit) },
	})
	if err := pr.Start(); err != nil {
		return nil, err
	}
	t.faults.happened(pr.name(), "started, process %d", pr.PID())
	p.mu.Lock()
	p.process = pr
	p.mu.Unlock()
	if t.holding.Load() {
		pr.Tell("hold")
	}
	return pr, nil
}

func (pr *process) name() string { return fmt.Sprintf("%s#%d", pr.post.name, pr.run) }

// hear takes in what the child says.
func (pr *process) hear(l line) {
	t := pr.post.crew.trial
	if l.Hangs != 0 {
		t.hung(pr, l.Hangs)
		return
	}
	t.ledger.take(pr.name(), l)
}

// with calls f with the post's process, if there is one, while no other fault can touch it.
func (p *post) with(f func(*process) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process != nil && f(p.process)
}

// kill kills the process of the post, frozen or not.
func (p *post) kill() bool {
	return p.with(func(pr *process) bool { return pr.Kill() == nil })
}

// freeze stops the process where it is; thaw has it go on.
func (p *post) freeze() (thawed func(), ok bool) {
	var frozen *process
	ok = p.with(func(pr *process) bool {
		if pr.frozen || pr.asked || pr.Freeze() != nil {
			return false
		}
		pr.frozen, frozen = true, pr
		return true
	})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		frozen.frozen = false
		_ = frozen.Thaw() // it may have been killed meanwhile
	}, ok
}

// stop asks the process to end, and watches that it does; a frozen one only if it will go on, unless must.
func (p *post) stop(must bool) bool {
	return p.with(func(pr *process) bool {
		if pr.asked || pr.frozen && !must && !p.crew.closed() {
			return false
		}
		if pr.frozen {
			pr.frozen = false
			_ = pr.Thaw()
		}
		if pr.Terminate() != nil {
			return false
		}
		pr.asked = true
		go pr.awaitStop()
		return true
	})
}

func (pr *process) awaitStop() {
	t := pr.post.crew.trial
	began := time.Now()
	select {
	case <-pr.Ended():
		t.stopTook(time.Since(began))
	case <-time.After(patienceWithStop):
		t.problem("%s was asked to end and had not after %v; it logged:\n%s", pr.name(), patienceWithStop, pr.Log())
		_ = pr.Kill()
	}
}

// dump has all processes write down what each goroutine does, which ends them; it is for the journal.
func (c *crew) dump() {
	for _, p := range c.posts {
		p.with(func(pr *process) bool { return pr.Dump() == nil })
	}
	time.Sleep(time.Second)
}
