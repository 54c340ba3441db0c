package devpg

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"time"
)

// runner runs the programs of PostgreSQL for one folder, each under a guard.
type runner struct {
	folder *folder
	as     account
	log    *os.File // gets their output
	env    []string
}

func newRunner(f *folder, as account, log *os.File) runner {
	return runner{folder: f, as: as, log: log, env: append(serverEnv(os.Getenv), f.env...)}
}

// A guard is a program that does not outlive this process. How that is done depends on the platform: guard_unix.go,
// guard_windows.go.
type guard struct {
	started
	leash
}

// started is a program that was started.
type started struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended
	exit error         // how it ended; read it only after done is closed
}

// watch starts the goroutine that waits for the program, and ends with it.
func (p *started) watch() {
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		p.exit = p.cmd.Wait()
	}()
}

// err says how the program ended; call it only after done is closed.
func (p *started) err() error {
	if p.exit == nil {
		return errors.New("exit status 0")
	}
	return p.exit
}

// stop asks the server to shut down, and waits. If it does not end in time, it is forced to.
func (g *guard) stop(within time.Duration) {
	g.ask()
	if !g.ended(within) {
		g.end()
	}
	g.release()
}

// abandon makes the program end immediately, and waits until it has. The folder stays.
func (g *guard) abandon() {
	g.halt()
	if !g.ended(10 * time.Second) {
		g.kill()
		<-g.done
	}
	g.release()
}

// end makes the program end immediately, and waits until it has. On Unix the folder is gone after that.
func (g *guard) end() {
	g.force()
	if !g.ended(10 * time.Second) {
		g.kill()
		<-g.done
	}
	g.release()
}

func (p *started) ended(within time.Duration) bool {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-p.done:
		return true
	case <-late.C:
		return false
	}
}

// run runs a program to its end, or to the end of the context.
func (r runner) run(ctx context.Context, program string, args ...string) error {
	g, err := r.start(program, args...)
	if err != nil {
		return err
	}
	select {
	case <-g.done:
		g.release()
		return g.exit
	case <-ctx.Done():
		g.end()
		return context.Cause(ctx)
	}
}
