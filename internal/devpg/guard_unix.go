//go:build unix

package devpg

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// guardScript runs a program and watches a pipe, the leash, whose other end only this process holds. It is given the
// folder, and then the program with its arguments.
//
// A line on the leash: SIGINT, PostgreSQL's fast shutdown. The end of the leash, which the kernel brings about when this
// process dies of whatever cause: SIGQUIT, its immediate shutdown, and then the folder is removed. SIGTERM comes first,
// since a program that the shell starts in the background ignores SIGQUIT until it asks for it; postgres and initdb do,
// but a moment later. (A server that gets SIGTERM and then SIGQUIT goes at once.)
//
// The lock is open as descriptor 3 in the guard and all that it starts.
//
//go:embed guard.sh
var guardScript string

// leash holds on to the guard.
type leash struct {
	line *os.File // a pipe's end for writing
}

// start starts a program as the account, under a guard in a session of its own: a Ctrl-C in the terminal reaches
// neither.
func (r runner) start(program string, args ...string) (*guard, error) {
	hold, line, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	defer hold.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, "sqlq-guard", r.folder.path, program}, args...)...)
	cmd.Stdin = hold
	cmd.Stdout, cmd.Stderr = r.log, r.log
	cmd.ExtraFiles = []*os.File{r.folder.lock}
	cmd.Env = r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.as.run(cmd)
	if err := cmd.Start(); err != nil {
		line.Close()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	g := &guard{cmd: cmd, leash: leash{line}}
	g.watch()
	return g, nil
}

// ask asks for the fast shutdown. An error means that the guard has ended.
func (g *guard) ask() { _, _ = g.line.WriteString("stop\n") }

// force asks for the immediate shutdown, and releases the leash.
func (g *guard) force() { g.line.Close() }

// kill is for a server that does not even heed SIGQUIT. The guard has not been waited for, so that its process id, the
// session's, is still its own.
func (g *guard) kill() { _ = syscall.Kill(-g.cmd.Process.Pid, syscall.SIGKILL) }

// release is for a program that has ended.
func (g *guard) release() { g.line.Close() }
