package trial

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	post   *post
	run    int
	cmd    *exec.Cmd
	input  io.WriteCloser
	ended  chan struct{}
	frozen bool
	asked  bool // to end

	mu   sync.Mutex
	said []string // the last lines of its standard error
}

// crew is all the posts.
type crew struct {
	trial   *trial
	posts   []*post
	runs    atomic.Int32
	closing chan struct{}
	loops   sync.WaitGroup
	stopped sync.Once
}

func newCrew(t *trial) *crew { return &crew{trial: t, closing: make(chan struct{})} }

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

// fill keeps the post filled until the crew closes, or the role is retired.
func (p *post) fill() {
	for !p.crew.closed() {
		pr, err := p.start()
		if err != nil {
			p.crew.trial.problem("start %s: %v", p.name, err)
			return
		}
		select {
		case <-pr.ended:
		case <-p.crew.closing:
			p.stop(false)
			<-pr.ended
		}
		p.mu.Lock()
		p.process = nil
		retired := p.crew.trial.retired(p.role)
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
	run := int(p.crew.runs.Add(1))
	s := spec{Role: p.role, Name: fmt.Sprintf("%s#%d", p.name, run), URL: t.site.url(p.via), Run: run, Seed: t.options.Seed,
		Trace: filepath.Join(t.dir, fmt.Sprintf("trace-%d", run)), Rate: p.rate}
	told, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	pr := &process{post: p, run: run, cmd: t.options.Command(), ended: make(chan struct{})}
	pr.cmd.Env = append(pr.cmd.Environ(), childVariable+"="+string(told))
	if pr.input, err = pr.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := pr.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	errors, err := pr.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := pr.cmd.Start(); err != nil {
		return nil, err
	}
	var readers sync.WaitGroup
	readers.Go(func() { pr.listen(output) })
	readers.Go(func() { pr.overhear(errors) })
	go func() {
		readers.Wait()
		err := pr.cmd.Wait()
		t.faults.happened(s.Name, "ended: %v", err)
		close(pr.ended)
	}()
	t.faults.happened(s.Name, "started, process %d", pr.cmd.Process.Pid)
	p.mu.Lock()
	p.process = pr
	p.mu.Unlock()
	if t.holding.Load() {
		pr.say("hold")
	}
	return pr, nil
}

func (pr *process) name() string { return fmt.Sprintf("%s#%d", pr.post.name, pr.run) }

// listen takes in what the child says until it ends; what it said before it was killed is still in the pipe.
func (pr *process) listen(output io.Reader) {
	t := pr.post.crew.trial
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			pr.keep(lines.Text())
			continue
		}
		if l.Hangs != 0 {
			t.hung(pr, l.Hangs)
			continue
		}
		t.ledger.take(pr.name(), l)
	}
}

// overhear keeps the last of what the child logs.
func (pr *process) overhear(output io.Reader) {
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		pr.keep(lines.Text())
	}
	_, _ = io.Copy(io.Discard, output)
}

func (pr *process) keep(text string) {
	pr.post.crew.trial.journal(pr.name(), text)
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.said = append(pr.said, text)
	if len(pr.said) > 40 {
		pr.said = pr.said[1:]
	}
}

// lastWords are what the child logged last.
func (pr *process) lastWords() string {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return strings.Join(pr.said, "\n")
}

// say writes a line to the child; one that has ended does not hear it.
func (pr *process) say(word string) { _, _ = io.WriteString(pr.input, word+"\n") }

// with calls f with the post's process, if there is one, while no other fault can touch it.
func (p *post) with(f func(*process) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process != nil && f(p.process)
}

// kill kills the process of the post, frozen or not.
func (p *post) kill() bool {
	return p.with(func(pr *process) bool { return pr.cmd.Process.Kill() == nil })
}

// freeze stops the process where it is; thaw has it go on.
func (p *post) freeze() (thawed func(), ok bool) {
	var frozen *process
	ok = p.with(func(pr *process) bool {
		if pr.frozen || pr.asked || lab.Freeze(pr.cmd.Process) != nil {
			return false
		}
		pr.frozen, frozen = true, pr
		return true
	})
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		frozen.frozen = false
		_ = lab.Thaw(frozen.cmd.Process) // it may have been killed meanwhile
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
			_ = lab.Thaw(pr.cmd.Process)
		}
		if lab.Terminate(pr.cmd.Process) != nil {
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
	case <-pr.ended:
		t.stopTook(time.Since(began))
	case <-time.After(patienceWithStop):
		t.problem("%s was asked to end and had not after %v; it said last:\n%s", pr.name(), patienceWithStop, pr.lastWords())
		_ = pr.cmd.Process.Kill()
	}
}

// dump has all processes write down what each goroutine does, which ends them; it is for the journal.
func (c *crew) dump() {
	for _, p := range c.posts {
		p.with(func(pr *process) bool { return lab.Dump(pr.cmd.Process) == nil })
	}
	time.Sleep(time.Second)
}
